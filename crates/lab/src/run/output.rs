//! Copies the output of a command to our own, byte for byte, while a second reader sees the same bytes.

use std::io::{self, IsTerminal as _, PipeReader, PipeWriter, Read, Write};

use tokio::process::Command;
use tokio::task::{JoinHandle, spawn_blocking};

#[cfg(unix)]
use super::terminal::{self, Terminal};

/// The most bytes that are copied at a time.
const CHUNK: usize = 64 * 1024;

/// One of the two outputs of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Error,
}

impl Stream {
    /// The value of OpenTelemetry's attribute `log.iostream`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Out => "stdout",
            Stream::Error => "stderr",
        }
    }

    fn is_terminal(self) -> bool {
        match self {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Error => io::stderr().is_terminal(),
        }
    }

    fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Out => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Stream::Error => io::stderr().lock().write_all(bytes),
        }
    }
}

/// The outputs of a command that has yet to start.
pub struct Output {
    sources: Vec<Source>,
    /// The end of a pipe. Its other end is closed when the command has ended.
    ended: PipeReader,
    end: PipeWriter,
}

/// The source of the bytes of one output.
struct Source {
    stream: Stream,
    reader: Reader,
}

enum Reader {
    Pipe(PipeReader),
    #[cfg(unix)]
    Terminal(Terminal),
}

impl Output {
    /// Gives the command outputs of its own. Where ours is a terminal, its is one too, so that it prints colours and doesn't keep
    /// lines back.
    ///
    /// # Errors
    /// The system can't open another file.
    pub fn new(command: &mut Command) -> io::Result<Self> {
        let (ended, end) = io::pipe()?;
        let mut output = Output { sources: Vec::new(), ended, end };
        for stream in [Stream::Out, Stream::Error] {
            let (reader, writer) = opened(stream)?;
            match stream {
                Stream::Out => command.stdout(writer),
                Stream::Error => command.stderr(writer),
            };
            output.sources.push(Source { stream, reader });
        }
        Ok(output)
    }

    /// The terminals that were given to the command.
    #[cfg(unix)]
    pub fn terminals(&self) -> Vec<Terminal> {
        let terminals = self.sources.iter().filter_map(|it| match &it.reader {
            Reader::Terminal(terminal) => terminal.try_clone().ok(),
            Reader::Pipe(_) => None,
        });
        terminals.collect()
    }

    /// Copies the outputs in the background. Calls what `seen` returns for a stream with each piece of it after the piece was
    /// written, and with `None` at the end.
    ///
    /// # Errors
    /// The system can't open another file.
    pub fn copy<S: FnMut(Option<&[u8]>) + Send + 'static>(
        self,
        seen: impl Fn(Stream) -> S,
    ) -> io::Result<Copying> {
        let Output { sources, ended, end } = self;
        let copies = sources.into_iter().map(|Source { stream, reader }| {
            let ended = ended.try_clone()?;
            let mut seen = seen(stream);
            Ok(spawn_blocking(move || {
                let is_held = reader.copy(&ended, |bytes| {
                    let written = stream.write(bytes);
                    seen(Some(bytes));
                    written
                });
                seen(None);
                is_held
            }))
        });
        Ok(Copying { copies: copies.collect::<io::Result<_>>()?, end })
    }
}

#[cfg(unix)]
fn opened(stream: Stream) -> io::Result<(Reader, std::process::Stdio)> {
    // Without a terminal to give, a pipe has to do.
    if let Some((terminal, end)) =
        stream.is_terminal().then(|| terminal::open(stream).ok()).flatten()
    {
        return Ok((Reader::Terminal(terminal), end.into()));
    }
    let (reader, writer) = io::pipe()?;
    Ok((Reader::Pipe(reader), writer.into()))
}

#[cfg(not(unix))]
fn opened(_: Stream) -> io::Result<(Reader, std::process::Stdio)> {
    let (reader, writer) = io::pipe()?;
    Ok((Reader::Pipe(reader), writer.into()))
}

/// The copying of the outputs.
pub struct Copying {
    copies: Vec<JoinHandle<bool>>,
    end: PipeWriter,
}

impl Copying {
    /// Waits until everything is copied that the command has written before it ended. Returns whether another program still holds
    /// one of its outputs.
    pub async fn finish(self) -> bool {
        drop(self.end);
        let mut is_held = false;
        for copy in self.copies {
            is_held |= copy.await.unwrap_or_default();
        }
        is_held
    }
}

impl Reader {
    /// Copies until the stream ends or `to` fails, or until the command has ended and nothing is left. Returns whether the stream
    /// goes on then. When `to` fails, the command gets an error at its next write, as it would without us.
    #[cfg(unix)]
    fn copy(mut self, ended: &PipeReader, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        /// How long a terminal may take to pass on what was written to it.
        const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

        let mut has_ended = false;
        let mut buffer = vec![0; CHUNK];
        loop {
            let reader = self.as_fd();
            let both =
                &mut [PollFd::new(&reader, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            let (waited_for, timeout) = match has_ended {
                true => (&mut both[..1], Some(&REST)),
                false => (&mut both[..], None),
            };
            match poll(waited_for, timeout) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return false,
                Ok(0) => return true,
                Ok(_) => {}
            }
            let is_readable = !both[0].revents().is_empty();
            has_ended |= !both[1].revents().is_empty();
            if !is_readable {
                continue;
            }
            match self.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal ends with an error.
                Ok(0) | Err(_) => return false,
                Ok(length) => {
                    if to(&buffer[..length]).is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Copies until the stream ends or `to` fails.
    #[cfg(not(unix))]
    fn copy(mut self, _: &PipeReader, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> bool {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = self.read(&mut buffer) {
            if to(&buffer[..length]).is_err() {
                break;
            }
        }
        false
    }

    #[cfg(unix)]
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        match self {
            Reader::Pipe(pipe) => pipe.as_fd(),
            Reader::Terminal(terminal) => terminal.as_fd(),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Reader::Pipe(pipe) => pipe.read(buffer),
            #[cfg(unix)]
            Reader::Terminal(terminal) => terminal.read(buffer),
        }
    }
}
