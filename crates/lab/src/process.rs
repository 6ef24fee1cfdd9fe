//! Starts processes that end with this one, however it ends.
//!
//! That needs Linux, where a process can ask for a signal at the death of its parent (`PR_SET_PDEATHSIG` in prctl(2)). On
//! other systems, a process that is killed leaves running what it has started.

use std::io;

use tokio::process::{Child, Command};

/// Starts a process that is killed when this process ends, even by SIGKILL. If cargo runs this process, as in `cargo test`
/// and `cargo bench`, this process is from now on killed in the same way when cargo ends.
///
/// # Errors
/// When the process cannot be started.
///
/// # Panics
/// Outside a Tokio runtime.
#[cfg(target_os = "linux")]
pub fn spawn(mut command: Command) -> io::Result<Child> {
    use std::sync::mpsc;

    let parent = std::process::id();
    // SAFETY: between fork and exec, the closure makes two system calls, and neither allocates nor locks anything.
    unsafe { command.pre_exec(move || linux::end_with(parent)) };
    let runtime = tokio::runtime::Handle::current();
    let (sender, started) = mpsc::channel();
    linux::on_starter(move || {
        let _runtime = runtime.enter();
        // The receiver waits just below.
        let _ = sender.send(command.spawn());
    });
    started.recv().map_err(io::Error::other)?
}

/// Starts a process. Here it cannot be tied to this one.
///
/// # Errors
/// When the process cannot be started.
#[cfg(not(target_os = "linux"))]
pub fn spawn(mut command: Command) -> io::Result<Child> {
    command.spawn()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::unix::process::parent_id;
    use std::sync::LazyLock;
    use std::sync::mpsc::{Sender, channel};

    use nix::errno::Errno;
    use nix::sys::prctl::set_pdeathsig;
    use nix::sys::signal::Signal;

    type Job = Box<dyn FnOnce() + Send>;

    /// The signal comes when the *thread* ends that has started the process. The threads of a runtime come and go, so one
    /// thread starts all processes and lasts as long as this process.
    static STARTER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            end_with_cargo();
            jobs.into_iter().for_each(|job| job());
        });
        sender
    });

    pub fn on_starter(job: impl FnOnce() + Send + 'static) {
        // A job that is refused is dropped, which its caller notices.
        let _ = STARTER.send(Box::new(job));
    }

    /// Asks for this process's end when its parent ends.
    pub fn end_with(parent: u32) -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // A parent that was already dead sends no signal.
        match parent_id() == parent {
            true => Ok(()),
            false => Err(Errno::ESRCH.into()),
        }
    }

    fn end_with_cargo() {
        let parent = parent_id();
        let name = std::fs::read_to_string(format!("/proc/{parent}/comm"));
        if name.is_ok_and(|name| name.trim_end() == "cargo") && end_with(parent).is_err() {
            std::process::exit(1);
        }
    }
}
