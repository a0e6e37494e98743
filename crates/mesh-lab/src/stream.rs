//! A steady stream of echoes, to count what is lost while something happens.

use std::{
    net::{Ipv6Addr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    namespace::Namespace,
    ping::{ECHO_REPLY, ECHO_REQUEST, is_no_answer, new_identifier},
};

/// Room for all answers that come at once when something that stopped goes on. What is counted is not to
/// be lost by who counts.
const BUFFER_BYTES: usize = 16 << 20;

/// How long the receiving thread sleeps at most before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Echoes that are being sent at a steady rate.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    sender: thread::JoinHandle<()>,
    receiver: thread::JoinHandle<()>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Echoes sent.
    pub sent: usize,
    /// Echoes that were not answered.
    pub lost: usize,
    /// The longest that an answer took: how long whatever happened held up packets.
    pub longest: Duration,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    to: Ipv6Addr,
    identifier: u16,
    stopped: AtomicBool,
    over: AtomicBool,
    echoes: Mutex<Vec<Echo>>,
}

#[derive(Clone, Copy, Debug)]
struct Echo {
    sent: Instant,
    answered: Option<Duration>,
}

impl Stream {
    /// Begins to send `a_second` echoes a second from `namespace`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn start(namespace: &Namespace, to: Ipv6Addr, a_second: u32) -> anyhow::Result<Self> {
        let socket = namespace.run(|| {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))
                .context("cannot open a socket for ICMPv6")?;
            setsockopt(&socket, RcvBufForce, &BUFFER_BYTES)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        })?;
        let shared = Arc::new(Shared {
            socket: socket.into(),
            to,
            identifier: new_identifier(),
            stopped: AtomicBool::new(false),
            over: AtomicBool::new(false),
            echoes: Mutex::default(),
        });
        let (sending, receiving) = (shared.clone(), shared.clone());
        Ok(Self {
            shared,
            sender: thread::spawn(move || sending.send(Duration::from_secs(1) / a_second)),
            receiver: thread::spawn(move || receiving.receive()),
        })
    }

    /// How many echoes have been answered so far.
    pub fn answered(&self) -> usize {
        let echoes = self.shared.lock();
        echoes.iter().filter(|echo| echo.answered.is_some()).count()
    }

    /// Ends the stream, waits for outstanding answers up to `patience`, and counts.
    pub fn stop(self, patience: Duration) -> Counted {
        self.shared.stopped.store(true, Ordering::Release);
        let _ = self.sender.join();
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline
            && self
                .shared
                .lock()
                .iter()
                .any(|echo| echo.answered.is_none())
        {
            thread::sleep(LOOK);
        }
        self.shared.over.store(true, Ordering::Release);
        let _ = self.receiver.join();
        let echoes = self.shared.lock();
        let answered = || echoes.iter().filter_map(|echo| echo.answered);
        Counted {
            sent: echoes.len(),
            lost: echoes.len() - answered().count(),
            longest: answered().max().unwrap_or_default(),
        }
    }
}

impl Shared {
    /// Sends by the clock: a thread that the system held up makes good what it missed.
    fn send(&self, interval: Duration) {
        let start = Instant::now();
        for number in 0u32.. {
            let due = start + interval * number;
            while let Some(wait) = due.checked_duration_since(Instant::now()) {
                thread::sleep(wait);
            }
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            self.lock().push(Echo {
                sent: Instant::now(),
                answered: None,
            });
            let mut message = vec![ECHO_REQUEST, 0, 0, 0];
            message.extend(self.identifier.to_be_bytes());
            message.extend([0, 0]);
            message.extend(number.to_be_bytes());
            // What cannot be sent is as lost as what is not answered.
            let _ = self.socket.send_to(&message, (self.to, 0));
        }
    }

    fn receive(&self) {
        let mut buffer = [0; 64];
        while !self.over.load(Ordering::Acquire) {
            match self.socket.recv(&mut buffer) {
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if is_no_answer(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&self, message: &[u8]) {
        let [ECHO_REPLY, 0, _, _, i0, i1, _, _, number @ ..] = message else {
            return;
        };
        let Ok(number) = number.try_into().map(u32::from_be_bytes) else {
            return;
        };
        if u16::from_be_bytes([*i0, *i1]) != self.identifier {
            return;
        }
        let mut echoes = self.lock();
        let echo = usize::try_from(number)
            .ok()
            .and_then(|at| echoes.get_mut(at));
        if let Some(echo) = echo {
            echo.answered.get_or_insert(echo.sent.elapsed());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Echo>> {
        self.echoes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
