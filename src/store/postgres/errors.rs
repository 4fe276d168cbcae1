//! What an error of the driver means for the sink: try again, ask first what became of the commit, or call a human.
//!
//! Classes of SQLSTATE: PostgreSQL manual, appendix A.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// An error before COMMIT: nothing was changed.
pub(super) fn refused(error: &Error) -> StoreError {
    if let Some(why) = certificate(error) {
        return StoreError::Fatal(format!(
            "the TLS certificate of the database was refused ({why}): name the file of its authority with sslrootcert in \
             --database-url, or choose sslmode=require to go without checking"
        ));
    }
    let Some(code) = error.code() else {
        let text = told(error);
        if text.contains("does not support TLS") {
            return StoreError::Fatal(
                "the database does not speak TLS: turn it on there, or choose sslmode=prefer or disable in \
                 --database-url"
                    .into(),
            );
        }
        if text.starts_with("invalid configuration") {
            return StoreError::Fatal(format!("--database-url cannot be used: {text}"));
        }
        return if text.starts_with("error deserializing column") {
            unfit(&text)
        } else {
            StoreError::Unavailable(text)
        };
    };
    let said = told(error);
    match code.code() {
        "42501" => StoreError::Fatal(format!(
            "the database refuses it ({said}): let the owner run `tracktags migrate`, and grant this user USAGE on the schema \
             and SELECT, INSERT, UPDATE, DELETE on its tables"
        )),
        "3D000" => StoreError::Fatal(format!(
            "there is no such database ({said}): create it, or mend --database-url"
        )),
        "25006" => StoreError::Unavailable(format!("it can only be read, as a standby is ({said})")),
        code if code.starts_with("28") => StoreError::Fatal(format!(
            "the database does not let this user in ({said}): mend user and password in --database-url"
        )),
        // Connection, resources, operator, locks and conflicts: these pass.
        // Our own time-out of an idle transaction, and errors inside the server.
        "25P03" | "XX000" => StoreError::Unavailable(said),
        code if ["08", "53", "57", "58", "40", "55"].contains(&&code[..2]) => StoreError::Unavailable(said),
        _ => unfit(&said),
    }
}

fn unfit(said: &str) -> StoreError {
    StoreError::Fatal(format!(
        "the database does not fit this program ({said}): undo what was changed in its schema by hand, or choose another \
         schema with --database-schema"
    ))
}

/// An error of COMMIT itself. Only a refusal that ends the transaction and not the session is a clear answer.
pub(super) fn unsettled(error: &Error) -> StoreError {
    let is_clear = error.code().is_some_and(|code| {
        *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
            || code.code().starts_with("23")
    });
    if is_clear { StoreError::Unavailable(told(error)) } else { StoreError::Ambiguous(told(error)) }
}

/// What the error says, with what caused it, on one line. The driver puts neither URL nor parameters into it.
fn told(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} {}", said.code().code(), said.message().replace('\n', " "));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

/// Why the certificate of the server was refused, if it was.
fn certificate(error: &Error) -> Option<String> {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(why)) = tls {
            return Some(why.to_string());
        }
        source = cause.source();
    }
    None
}
