//! Equal shapes are kept once: a worker has few, whatever the number of its series.
//!
//! In: a shape, counted. Out: its number. A shape without users gives its number to another, but not while a snapshot
//! runs, which still reads by number.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::types::Shape;

/// The shapes of one worker.
#[derive(Default)]
pub(crate) struct Shapes {
    shapes: Vec<(Shape, u32)>,
    numbers: HashMap<Shape, u32, FixedState>,
    free: Vec<u32>,
    /// While a snapshot runs: numbers to release when it ends.
    held: Option<Vec<u32>>,
}

impl Shapes {
    /// The number of a shape, with one more user.
    pub fn acquire(&mut self, shape: &Shape) -> u32 {
        if let Some(&number) = self.numbers.get(shape) {
            self.shapes[number as usize].1 += 1;
            return number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.shapes[number as usize] = (*shape, 1);
                number
            }
            None => {
                self.shapes.push((*shape, 1));
                self.shapes.len() as u32 - 1
            }
        };
        self.numbers.insert(*shape, number);
        number
    }

    /// One user less.
    pub fn release(&mut self, number: u32) {
        if let Some(held) = &mut self.held {
            return held.push(number);
        }
        let (shape, users) = &mut self.shapes[number as usize];
        *users -= 1;
        if *users == 0 {
            self.numbers.remove(shape);
            self.free.push(number);
        }
    }

    /// The shape with this number.
    #[inline]
    pub fn get(&self, number: u32) -> &Shape {
        &self.shapes[number as usize].0
    }

    /// A snapshot begins.
    pub fn freeze(&mut self) {
        self.held.get_or_insert_default();
    }

    /// The snapshot has ended.
    pub fn thaw(&mut self) {
        self.held.take().into_iter().flatten().for_each(|number| self.release(number));
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.shapes.capacity() * size_of::<(Shape, u32)>()
            + self.numbers.capacity() * (size_of::<(Shape, u32)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Amount, LimitSource, MetricType, Notify, Operation, Span};

    fn shape(units: i64) -> Shape {
        Shape {
            operation: Operation::Sum,
            metric_type: MetricType::Checkpoint,
            flush: Span::H1,
            reset: Span::H1,
            initial_value: Amount::from_units(units),
            batch: Span::S15,
            stored: true,
            limit: None,
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: 60,
            cleanup_after_days: None,
        }
    }

    #[test]
    fn equal_shapes_share_a_number_until_nobody_uses_it() {
        let mut shapes = Shapes::default();
        let first = shapes.acquire(&shape(1));
        assert_eq!(shapes.acquire(&shape(1)), first);
        shapes.release(first);
        assert_ne!(shapes.acquire(&shape(2)), first);
        shapes.release(first);
        assert_eq!(shapes.acquire(&shape(3)), first);
        assert_eq!(*shapes.get(first), shape(3));
    }

    #[test]
    fn a_number_is_not_given_away_while_a_snapshot_runs() {
        let mut shapes = Shapes::default();
        let first = shapes.acquire(&shape(1));
        shapes.freeze();
        shapes.release(first);
        assert_ne!(shapes.acquire(&shape(2)), first);
        assert_eq!(*shapes.get(first), shape(1));
        shapes.thaw();
        assert_eq!(shapes.acquire(&shape(3)), first);
    }
}
