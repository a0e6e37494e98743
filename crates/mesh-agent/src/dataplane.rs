//! The threads that carry packets: one from each queue of the TUN to the network, one back for each socket, one for the
//! engine's timers.
//!
//! Each of the first two kinds runs a batch to completion, from the read to the write, with buffers that were
//! made at the start. They share nothing that is locked for a packet of an established session. The system
//! gives all packets of a flow to one queue, and all datagrams of a sender to one socket, so they keep their order.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mesh_core::{
    AnswerRate, Asked, Cut, MTU_MAX, Opened, Remote, Route, Run, ecn, hand_on_ecn, prohibited,
    too_big,
};
use mesh_os::{
    clock,
    poll::{Wake, wait_readable},
    tun::{PacketBatch, Queue, Tun},
    udp::{Datagram, Gather, RecvBatch, SendBatch, UdpSocket},
};
use mesh_types::{Ecn, Instant};
use mesh_wire::{
    relay,
    wireguard::{DATA_HEADER_BYTES, data_message_bytes, is_data},
};
use tracing::{debug, error};

use crate::{
    overlay::Overlay,
    pulse::{Count, Pulse},
};

/// Packets read from the TUN at a time: enough for one run of segmentation offload (64), few enough that
/// the first one waits tens of microseconds at most.
const BATCH_PACKETS: usize = 64;

/// The largest packet that the TUN gives, in bytes: its MTU.
const PACKET_BYTES_MAX: usize = MTU_MAX as usize;

/// Room in front of a packet, for its own header and a relay's.
const HEAD_ROOM: usize = relay::HEADER_BYTES + DATA_HEADER_BYTES;

/// Room behind a packet for padding to 16 bytes and the 16 bytes of the tag.
const TAIL_ROOM: usize = 32;

/// The timer thread looks at least this often while a timer runs: its sleep does not count the time in
/// which the machine is suspended, the engine's clock does.
const TIMER_SLEEP_MAX: Duration = Duration::from_secs(1);

/// The running threads.
#[derive(Debug)]
pub(crate) struct Threads {
    stop: Arc<Stop>,
    handles: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Stop {
    stopped: AtomicBool,
    wake: Wake,
}

impl Threads {
    /// Starts carrying packets between `tun` and the overlay's sockets.
    pub(crate) fn start(
        overlay: &Arc<Overlay>,
        tun: &Arc<Tun>,
        pulse: &Arc<Pulse>,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop {
            stopped: AtomicBool::new(false),
            wake: Wake::new()?,
        });
        let timers = spawn("mesh-timers", {
            let (overlay, stop, pulse) = (overlay.clone(), stop.clone(), pulse.clone());
            let rounds = pulse.part("timers");
            move || run_timers(&overlay, &stop, &pulse, &rounds)
        })?;
        overlay.set_timer_thread(timers.thread().clone());
        overlay.wake_timer();
        let mut handles = vec![timers];
        let mut carry =
            |direction: &'static str, name, run: fn(&Lane) -> io::Result<()>, number| {
                let lane = Lane {
                    overlay: overlay.clone(),
                    tun: tun.clone(),
                    number,
                    stop: stop.clone(),
                    pulse: pulse.clone(),
                    rounds: pulse.part(direction),
                };
                handles.push(spawn(name, move || lane.carry(direction, run))?);
                io::Result::Ok(())
            };
        for number in 0..tun.queues().len() {
            carry("outbound", "mesh-outbound", outbound, number)?;
        }
        for number in 0..overlay.sockets.len() {
            carry("inbound", "mesh-inbound", inbound, number)?;
        }
        Ok(Self { stop, handles })
    }

    /// Stops the threads and waits for them.
    pub(crate) fn stop(self) {
        self.stop.stopped.store(true, Ordering::Release);
        self.stop.wake.wake();
        for handle in self.handles {
            handle.thread().unpark();
            // A panic has ended the process by now.
            let _ = handle.join();
        }
    }
}

impl Stop {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// What a thread that carries packets has.
struct Lane {
    overlay: Arc<Overlay>,
    tun: Arc<Tun>,
    /// Its queue's or its socket's.
    number: usize,
    stop: Arc<Stop>,
    pulse: Arc<Pulse>,
    rounds: Arc<Count>,
}

impl Lane {
    /// A direction that broke cannot be mended from within: the service manager starts the agent again.
    fn carry(&self, direction: &'static str, run: fn(&Self) -> io::Result<()>) {
        if let Err(error) = run(self)
            && !self.stop.is_stopped()
        {
            error!(direction, %error, "the data plane is broken");
            std::process::exit(1);
        }
    }

    /// Begins another round; false: it is to stop.
    fn goes_on(&self) -> bool {
        self.rounds.beat();
        !self.stop.is_stopped()
    }

    fn queue(&self) -> &Queue {
        &self.tun.queues()[self.number]
    }

    /// Its socket; where there are more queues than sockets, one of several lanes.
    fn socket(&self) -> &UdpSocket {
        let sockets = &self.overlay.sockets;
        &sockets[self.number % sockets.len()]
    }
}

/// From the TUN to the network.
fn outbound(lane: &Lane) -> io::Result<()> {
    let (overlay, tun): (&Overlay, &Tun) = (&lane.overlay, &lane.tun);
    let (queue, socket) = (lane.queue(), lane.socket());
    let mut batch = PacketBatch::new(BATCH_PACKETS, PACKET_BYTES_MAX, HEAD_ROOM, TAIL_ROOM);
    let mut misfits = Misfits::default();
    while lane.goes_on() {
        if queue.recv(&mut batch)? == 0 {
            wait_readable(queue, &lane.stop.wake, lane.pulse.nap())?;
            continue;
        }
        let now = clock::now();
        let mut route: Option<Route> = None;
        // Frames leave from where they were sealed.
        let mut sending = Gather::new();
        for slot in batch.packets() {
            let packet_bytes = slot.len() - HEAD_ROOM - TAIL_ROOM;
            let packet = &slot[HEAD_ROOM..HEAD_ROOM + packet_bytes];
            if !route.as_ref().is_some_and(|route| route.covers(packet)) {
                route = overlay.forwarding.route(packet);
            }
            let sealed = match &route {
                Some(route) if !route.fits(packet_bytes) => {
                    misfits.send(route, packet, overlay, tun, now)?;
                    continue;
                }
                Some(route) => {
                    let says = ecn(packet);
                    let (relayed, message) = slot.split_at_mut(relay::HEADER_BYTES);
                    let message = &mut message[..data_message_bytes(packet_bytes)];
                    let sealed = route.seal(message, packet_bytes, now);
                    let begin = route.relay_header().map_or(relay::HEADER_BYTES, |header| {
                        relayed.copy_from_slice(header);
                        0
                    });
                    let frame = |length| begin..relay::HEADER_BYTES + length;
                    sealed
                        .ok()
                        .map(|length| (route.remote(), says, frame(length)))
                }
                None => None,
            };
            let Some((remote, says, frame)) = sealed else {
                route = None;
                let packet = &slot[HEAD_ROOM..HEAD_ROOM + packet_bytes];
                if let Err(mtu) = overlay.handle_packet(packet) {
                    misfits.tell(packet, mtu, tun, now)?;
                }
                continue;
            };
            let frame = &slot[frame];
            let Remote::Udp(endpoint) = remote else {
                overlay.send(remote, frame);
                continue;
            };
            if let Err(error) = sending.push(socket, endpoint, says, frame) {
                debug!(%endpoint, %error, "could not send");
            }
        }
        if let Err(error) = sending.flush(socket) {
            debug!(%error, "could not send");
        }
        if overlay.forwarding.needs_attention() {
            overlay.wake_timer();
        }
    }
    Ok(())
}

/// Packets from the TUN that do not fit one datagram of their way.
#[derive(Default)]
struct Misfits {
    /// How many were cut.
    cut: u32,
    answers: AnswerRate,
}

impl Misfits {
    /// Sends a packet in pieces, or tells its sender that it is too big.
    #[cold]
    fn send(
        &mut self,
        route: &Route,
        packet: &[u8],
        overlay: &Overlay,
        tun: &Tun,
        now: Instant,
    ) -> io::Result<()> {
        self.cut = self.cut.wrapping_add(1);
        match route.cut(packet, overlay.first_cut.wrapping_add(self.cut), now) {
            Cut::Pieces(pieces) => {
                for piece in &pieces {
                    send_one(route, piece, overlay, now);
                }
                Ok(())
            }
            Cut::TooBig(mtu) => self.tell(packet, mtu, tun, now),
        }
    }

    /// Tells the sender of a packet what its way carries.
    #[cold]
    fn tell(&mut self, packet: &[u8], mtu: u16, tun: &Tun, now: Instant) -> io::Result<()> {
        if let Some(answer) = too_big(packet, mtu)
            && self.answers.allow(now)
        {
            tun.send([answer.as_slice()])?;
        }
        Ok(())
    }
}

/// Seals a packet and sends it at once.
fn send_one(route: &Route, packet: &[u8], overlay: &Overlay, now: Instant) {
    let header = route.relay_header().map_or(&[][..], |header| header);
    let mut frame = header.to_vec();
    frame.resize(header.len() + data_message_bytes(packet.len()), 0);
    let message = &mut frame[header.len()..];
    message[DATA_HEADER_BYTES..DATA_HEADER_BYTES + packet.len()].copy_from_slice(packet);
    // A session that ended in between loses a piece, as a network may.
    if let Ok(length) = route.seal(message, packet.len(), now) {
        frame.truncate(header.len() + length);
        overlay.send(route.remote(), &frame);
    }
}

/// From the network to the TUN.
fn inbound(lane: &Lane) -> io::Result<()> {
    let (overlay, socket): (&Overlay, _) = (&lane.overlay, lane.socket());
    let mut batch = RecvBatch::new();
    let mut relayed = SendBatch::new();
    while lane.goes_on() {
        if !socket.recv(&mut batch)? {
            wait_readable(socket, &lane.stop.wake, lane.pulse.nap())?;
            continue;
        }
        let now = clock::now();
        let mut run = Run::default();
        let packets = batch.datagrams().filter_map(|datagram| {
            let Datagram {
                from, ecn, payload, ..
            } = datagram;
            open(
                overlay,
                &mut run,
                from.into(),
                ecn,
                payload,
                &mut relayed,
                now,
            )
        });
        lane.tun.send(packets)?;
        if let Err(error) = relayed.flush(socket) {
            debug!(%error, "could not relay");
        }
    }
    Ok(())
}

/// Takes a datagram; returns the packet for the TUN, if there is one in it. A frame that this machine relays
/// waits in `relayed`.
pub(crate) fn open<'a>(
    overlay: &Overlay,
    run: &mut Run,
    from: Remote,
    ecn: Ecn,
    payload: &'a mut [u8],
    relayed: &mut SendBatch,
    now: Instant,
) -> Option<&'a [u8]> {
    if overlay
        .moon
        .relay(overlay, from, ecn, payload, relayed, now)
    {
        return None;
    }
    if !is_data(payload) && !relay::is_data(payload) {
        overlay.handle_datagram(from, payload);
        return None;
    }
    let opened = overlay.forwarding.open_in(run, from, payload, now);
    // Before the packet is handed on: the answer, which may come at once, is to go out on the session
    // that this packet confirmed, not on one with a process of the peer that is gone.
    if overlay.forwarding.needs_attention() {
        overlay.run_timers();
    }
    match opened {
        Opened::Packet { packet, .. } => hand_on_ecn(packet, ecn).then_some(packet),
        Opened::Agent { peer, via, packet } => {
            overlay.handle_agent_packet(&peer, via, packet);
            None
        }
        Opened::Denied { asked, packet } => {
            deny(overlay, asked, packet, now);
            None
        }
        Opened::Stray => {
            overlay.handle_stray(from);
            None
        }
        Opened::Keepalive { .. } | Opened::Refused(_) | Opened::ForEngine => None,
    }
}

/// Drops a packet that the rules do not let through, and tells its sender.
#[cold]
fn deny(overlay: &Overlay, asked: Option<Asked>, packet: &[u8], now: Instant) {
    if overlay.rules.note_denied(asked, now)
        && let Some(answer) = prohibited(packet)
        && let Some(route) = overlay.forwarding.route(&answer)
    {
        send_one(&route, &answer, overlay, now);
    }
}

fn run_timers(overlay: &Overlay, stop: &Stop, pulse: &Pulse, rounds: &Count) {
    while !stop.is_stopped() {
        let sleep = overlay.run_timers().map(|sleep| sleep.min(TIMER_SLEEP_MAX));
        rounds.beat();
        match sleep.into_iter().chain(pulse.nap()).min() {
            Some(sleep) => thread::park_timeout(sleep),
            None => thread::park(),
        }
    }
}
