//! A pseudo-terminal between a command and our own terminal, so that the command finds a terminal where we have one.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::output::Stream;

/// Our end of a pseudo-terminal.
pub struct Terminal {
    end: File,
    stream: Stream,
}

/// Opens a pseudo-terminal of the size of the terminal that one of our outputs is. Returns our end and the command's. It changes no
/// byte: our own terminal does what a terminal does with them.
pub fn open(stream: Stream) -> io::Result<(Terminal, OwnedFd)> {
    let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    fcntl_setfd(&end, FdFlags::CLOEXEC)?;
    grantpt(&end)?;
    unlockpt(&end)?;
    let name = ptsname(&end, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let commands = open_file(name.as_c_str(), flags, Mode::empty())?;
    let mut modes = tcgetattr(&commands)?;
    modes.make_raw();
    tcsetattr(&commands, OptionalActions::Now, &modes)?;
    let terminal = Terminal { end: end.into(), stream };
    terminal.resize();
    Ok((terminal, commands))
}

impl Terminal {
    /// Takes over the size of our own terminal.
    pub fn resize(&self) {
        let size = match self.stream {
            Stream::Out => tcgetwinsize(io::stdout()),
            Stream::Error => tcgetwinsize(io::stderr()),
        };
        // A terminal that doesn't say its size stays as it is.
        let _ = size.and_then(|size| tcsetwinsize(&self.end, size));
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Terminal { end: self.end.try_clone()?, stream: self.stream })
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.end.read(buffer)
    }
}
