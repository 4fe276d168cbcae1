//! The one hint that the hot path gives to the processor: load a cache line that will be needed soon.
//!
//! Series are touched in the order in which clients send, so every update misses the cache; asking for the line some
//! updates ahead hides most of the wait. `benches/meter.rs` measures what that is worth; on other architectures this is a
//! no-op. The only file that may hold `unsafe`.
#![allow(unsafe_code)]

/// Asks for the cache line at which the value begins. Has no effect but on time.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults; SSE is part of x86_64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
