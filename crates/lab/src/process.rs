//! Starts processes that are killed when this process ends, however it ends.
//!
//! This works on Linux, where a process can request a signal for when its parent ends (`PR_SET_PDEATHSIG` in prctl(2)). On
//! other systems, the started processes keep running when this process is killed.

use std::io;

use tokio::process::{Child, Command};

/// Starts a process that is killed when this process ends, even by SIGKILL. If cargo started this process, as in `cargo test`
/// and `cargo bench`, this process is also killed when cargo ends.
///
/// # Errors
/// Fails when the process cannot be started.
///
/// # Panics
/// Panics outside a Tokio runtime.
#[cfg(target_os = "linux")]
pub fn spawn(mut command: Command) -> io::Result<Child> {
    use std::sync::mpsc;

    let parent = std::process::id();
    // SAFETY: between fork and exec, the closure makes two system calls. It neither allocates memory nor takes a lock.
    unsafe { command.pre_exec(move || linux::end_with(parent)) };
    let runtime = tokio::runtime::Handle::current();
    let (sender, started) = mpsc::channel();
    linux::on_starter(move || {
        let _runtime = runtime.enter();
        // Sending can't fail because the receiver waits below.
        let _ = sender.send(command.spawn());
    });
    started.recv().map_err(io::Error::other)?
}

/// Starts a process. On this system it keeps running when this process is killed.
///
/// # Errors
/// Fails when the process cannot be started.
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

    /// The jobs of the thread that starts all processes. The kernel sends the signal when the *thread* that started a process
    /// ends. A runtime ends its threads at any time, so this thread exists for as long as this process.
    static STARTER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            end_with_cargo();
            jobs.into_iter().for_each(|job| job());
        });
        sender
    });

    pub fn on_starter(job: impl FnOnce() + Send + 'static) {
        // If the thread is gone, the job is dropped, and its caller gets an error from the channel.
        let _ = STARTER.send(Box::new(job));
    }

    /// Makes the kernel kill this process when its parent ends.
    ///
    /// # Errors
    /// Fails when `parent` is no longer the parent of this process.
    pub fn end_with(parent: u32) -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // No signal comes for a parent that ended before the call above.
        match parent_id() == parent {
            true => Ok(()),
            false => Err(Errno::ESRCH.into()),
        }
    }

    /// Makes this process end with cargo if cargo started it. Ends it now if cargo is already gone.
    fn end_with_cargo() {
        const INIT: u32 = 1;
        let parent = parent_id();
        let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
        let is_gone = match name.trim_end() {
            "cargo" => end_with(parent).is_err(),
            // These adopt processes whose parent has ended. Cargo sets the variable for what it starts.
            name => {
                let is_orphan = parent == INIT || name == "systemd";
                is_orphan && std::env::var_os("CARGO").is_some()
            }
        };
        if is_gone {
            std::process::exit(1);
        }
    }
}
