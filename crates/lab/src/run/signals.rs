//! Passes signals on to a command.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use signal_hook_registry::register_sigaction;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::Child;

use super::terminal::Terminal;

/// The signals that are passed on.
const PASSED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// The signals that arrive from now on and that the command doesn't get itself.
pub struct Signals {
    arrived: UnixStream,
}

impl Signals {
    /// Listens to the signals. Leaves out those that were ignored when we started, as under `nohup`: the command ignores them too.
    /// A signal of the terminal, such as Ctrl-C, goes to its whole foreground group, so the command has it already.
    ///
    /// # Errors
    /// The system doesn't allow it.
    pub fn listen() -> io::Result<Self> {
        let (arrived, sender) = Socket::pair()?;
        arrived.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        let sender = Arc::new(sender);
        for signal in PASSED {
            if is_ignored(signal)? {
                continue;
            }
            let sender = Arc::clone(&sender);
            // SAFETY: the action reads what the kernel passed to it and makes one system call. It neither allocates memory nor
            // takes a lock.
            unsafe {
                register_sigaction(signal as i32, move |info| {
                    // Elsewhere the number of the sender says the same, but a sender outside of a container has none either.
                    let is_of_the_kernel = match cfg!(target_os = "linux") {
                        true => info.si_code > 0,
                        false => info.si_pid() == 0,
                    };
                    if signal == Signal::SIGWINCH || !is_of_the_kernel {
                        let _ = (&*sender).write(&[signal as u8]);
                    }
                })?;
            }
        }
        Ok(Signals { arrived: UnixStream::from_std(arrived)? })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        match self.arrived.read_u8().await.map(|number| Signal::try_from(i32::from(number))) {
            Ok(Ok(signal)) => signal,
            // The handlers hold the other end and write numbers of signals only.
            _ => std::future::pending().await,
        }
    }
}

/// Passes a signal on to the command, and before it a new size of our terminal to those of the command.
pub fn forward(child: &Child, signal: Signal, terminals: &[Terminal]) {
    if signal == Signal::SIGWINCH {
        terminals.iter().for_each(Terminal::resize);
    }
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // An error means that the command has ended in the meantime.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

fn is_ignored(it: Signal) -> nix::Result<bool> {
    // SAFETY: neither handler is code of ours. The first call is the only way to ask, and the second undoes it.
    unsafe {
        let before = signal(it, SigHandler::SigIgn)?;
        let is_ignored = matches!(before, SigHandler::SigIgn);
        if !is_ignored {
            signal(it, before)?;
        }
        Ok(is_ignored)
    }
}
