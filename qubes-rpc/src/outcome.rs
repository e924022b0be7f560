//! What becomes of a call, and the one place where an error turns into what the caller is told.

use std::io;

use contract::Fault;

use crate::{
    answer::{CallerGone, Form},
    error::{Error, chain},
    handle::Call,
    run::RunError,
};

/// What became of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Why there is no result.
    pub(crate) fault: Option<Fault>,
    /// What goes to the caller after the streams.
    pub(crate) last: Vec<u8>,
    /// Why, for the operator alone.
    pub(crate) detail: String,
}

impl Outcome {
    /// No result.
    pub(crate) fn fault(fault: Fault, detail: String) -> Self {
        Self { fault: Some(fault), last: Vec::new(), detail }
    }

    /// `ok`, or the name of the fault.
    pub(crate) fn name(&self) -> &'static str {
        match &self.fault {
            None => "ok",
            Some(Fault::Refused {}) => "Refused",
            Some(Fault::BadRequest { .. }) => "BadRequest",
            Some(Fault::NotRunning { .. }) => "NotRunning",
            Some(Fault::TimedOut { .. }) => "TimedOut",
            Some(Fault::TooLarge { .. }) => "TooLarge",
            Some(Fault::Busy {}) => "Busy",
            Some(Fault::Failed { .. }) => "Failed",
        }
    }

    /// Sends what is left to send.
    pub(crate) async fn deliver(mut self, call: &Call) -> Self {
        let sent = match (&self.fault, call.answer.form()) {
            (_, Form::Json) => call.answer.text(std::mem::take(&mut self.last)).await,
            (Some(fault), _) => call.answer.fault(fault).await,
            (None, Form::Framed) => call.answer.result(std::mem::take(&mut self.last)).await,
            (None, Form::Plain) => call.answer.text(std::mem::take(&mut self.last)).await,
        };
        if let Err(error) = sent
            && self.detail.is_empty()
        {
            self.detail = chain(&error);
        }
        self
    }
}

/// The one place where an error becomes what the caller is told.
pub(crate) fn failed(error: Error, id: &str) -> Outcome {
    let broken = |message: &str| Fault::Failed { message: message.into(), call: id.into() };
    let fault = match &error {
        Error::Fault(fault) => fault.clone(),
        Error::Cancelled | Error::Settings(_) => Fault::Refused {},
        Error::Qubesd(admin_api::Error::TimedOut) => {
            Fault::TimedOut { message: "qubesd did not answer in time".into() }
        }
        Error::Qubesd(admin_api::Error::Exception(exception)) => {
            broken(&format!("qubesd answered {}", exception.kind))
        }
        Error::Qubesd(admin_api::Error::Empty) => broken("qubesd did not accept the request"),
        Error::Qubesd(_) => broken("qubesd cannot be reached or answers nonsense"),
        Error::Run(error) => broken(told(error)),
        Error::CallerGone(CallerGone(_)) => broken("the caller went away"),
        Error::Audit(_) => broken("the audit log cannot be written, so nothing was done"),
        Error::File(_) => broken("a file in dom0 could not be used"),
        Error::TcpPolicy(_) => broken("the helper that writes qubes.ConnectTCP policy failed"),
        Error::Stored(what) => broken(what),
        Error::Thread(_) => broken("dom0 has no thread to spare; try again later"),
        Error::Encoding(_) | Error::Panicked => broken("internal error"),
    };
    Outcome::fault(fault, chain(&error))
}

/// What a caller may know of work that could not be run.
fn told(error: &RunError) -> &'static str {
    match error {
        RunError::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => {
            "qrexec-client is missing in dom0"
        }
        RunError::NotStarted(_) => "qrexec-client cannot be started in dom0; try again later",
        RunError::Refused { .. } => "qrexec in dom0 refused to reach the qube",
        RunError::NotFound { .. } => "the qube has no service qubes.VMShell",
        RunError::CannotExecute { .. } => "the qube cannot be reached, or has no such user",
        RunError::Vanished { .. } => "the connection to the qube broke before the work ended",
        RunError::Stalled => "the qube does not answer",
        RunError::Unkillable => "a process in the qube could not be killed",
        RunError::Garbled => "the qube answered nonsense",
        RunError::BodyCut => "the body ended early",
        RunError::Unready { .. } => "the qube could not take the request",
        RunError::NulByte(_) => "a NUL cannot be passed to the qube",
        RunError::Io(_) => "the connection to the qube failed",
    }
}
