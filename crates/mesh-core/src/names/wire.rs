//! The bytes of a question, and the bytes of its answer.

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable, DecodeError},
};

use super::{
    NameTable,
    zone::{Data, Found, Zone},
};

/// The largest datagram that is sent, in bytes, and advertised: what the mesh carries in one piece, 1280
/// bytes less the headers of IPv6 and UDP. The DNS community settled on the same number.
pub const UDP_BYTES_MAX: u16 = 1232;

/// What a client without EDNS takes over UDP, in bytes (RFC 1035 section 4.2.1).
const PLAIN_UDP_BYTES_MAX: u16 = 512;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, without the two bytes of its length.
    Tcp,
}

/// The answer to `question`; `None`: it is no question, and answering it could make two servers talk to each
/// other for ever.
pub fn answer(table: &NameTable, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
    respond(question, transport, |query, reply| {
        fill(table, query, reply);
    })
}

/// The answer to whoever may not ask; `None` as in [`answer`]. It is not longer than the question.
pub fn refuse(question: &[u8], transport: Transport) -> Option<Vec<u8>> {
    respond(question, transport, |_, reply| {
        reply.metadata.response_code = ResponseCode::Refused;
    })
}

fn respond(
    question: &[u8],
    transport: Transport,
    fill: impl FnOnce(&Query, &mut Message),
) -> Option<Vec<u8>> {
    let mut decoder = BinDecoder::new(question);
    let header = Header::read(&mut decoder).ok()?;
    if header.message_type == MessageType::Response {
        return None;
    }
    let mut reply = Message::new(header.id, MessageType::Response, header.op_code);
    reply.metadata = Metadata::response_from_request(&header.metadata);
    // No signatures are checked here, whatever the client thinks of them (RFC 4035 section 3.1.6).
    reply.metadata.checking_disabled = false;
    let mut limit = PLAIN_UDP_BYTES_MAX;
    let mut version = 0;
    let read = read(&mut decoder, &header);
    if let Ok((query, edns)) = &read {
        reply.queries.push(query.clone());
        if let Some(edns) = edns {
            version = edns.version();
            limit = edns.max_payload().clamp(PLAIN_UDP_BYTES_MAX, UDP_BYTES_MAX);
            let mut own = Edns::new();
            own.set_max_payload(UDP_BYTES_MAX);
            own.set_dnssec_ok(edns.flags().dnssec_ok);
            reply.edns = Some(own);
        }
    }
    match read {
        // Other operations have other forms, so this comes before whether the form is right.
        _ if header.op_code != OpCode::Query => {
            reply.metadata.response_code = ResponseCode::NotImp;
        }
        Err(_) => reply.metadata.response_code = ResponseCode::FormErr,
        // RFC 6891 section 6.1.3.
        Ok(_) if version != 0 => reply.metadata.response_code = ResponseCode::BADVERS,
        Ok((query, _)) => fill(&query, &mut reply),
    }
    let limit = match transport {
        Transport::Udp => limit,
        Transport::Tcp => u16::MAX,
    };
    encode(reply, usize::from(limit))
}

/// The one question (RFC 9619), and what the client says of itself.
fn read(
    decoder: &mut BinDecoder<'_>,
    header: &Header,
) -> Result<(Query, Option<Edns>), DecodeError> {
    let counts = &header.counts;
    let malformed = || DecodeError::InvalidEmptyRecord;
    if (counts.queries, counts.answers, counts.authorities) != (1, 0, 0) {
        return Err(malformed());
    }
    let start = decoder.index();
    let query = Query::read(decoder)?;
    // The first name of a message can only point into the header, and what that would spell is longer than
    // the pointer: an answer is not to be a way to make packets larger.
    if decoder.index() - start != query.to_bytes().map_err(|_| malformed())?.len() {
        return Err(malformed());
    }
    let additionals = usize::from(counts.additionals);
    let (_, edns, _) = Message::read_records(decoder, additionals, true, header.op_code)?;
    Ok((query, edns))
}

/// The reply's bytes; without its records and with the bit that says so, where they are more than `limit`.
fn encode(mut reply: Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.answers.clear();
    reply.authorities.clear();
    reply.additionals.clear();
    reply.metadata.truncation = true;
    reply.to_vec().ok()
}

fn fill(table: &NameTable, query: &Query, reply: &mut Message) {
    let kind = query.query_type;
    reply.metadata.response_code = if kind == RecordType::OPT {
        ResponseCode::FormErr
    } else if query.query_class != DNSClass::IN
        || matches!(kind, RecordType::AXFR | RecordType::IXFR)
    {
        ResponseCode::Refused
    } else if matches!(u16::from(kind), 249 | 250 | 253 | 254) {
        // TKEY, TSIG, MAILB and MAILA ask for no records.
        ResponseCode::NotImp
    } else {
        match table.find(&query.name) {
            None => ResponseCode::Refused,
            Some((zone, found)) => {
                reply.metadata.authoritative = true;
                records(table, zone, found, query, reply)
            }
        }
    };
}

/// Puts the records into `reply` and gives its code.
fn records(
    table: &NameTable,
    zone: &Zone,
    found: Found<'_>,
    query: &Query,
    reply: &mut Message,
) -> ResponseCode {
    let (data, apex) = match found {
        Found::Apex(data) => (data, true),
        Found::Here(data) => (data, false),
        Found::Nothing => {
            reply.authorities.push(zone.denial());
            return ResponseCode::NXDomain;
        }
    };
    // The question's own spelling of the name comes back (0x20 of many resolvers checks for it).
    reply.answers = if query.query_type == RecordType::ANY {
        any(zone, data, apex, query)
    } else {
        of_kind(zone, data, apex, query, query.query_type)
    };
    if reply.answers.is_empty() {
        reply.authorities.push(zone.denial());
    }
    if query.query_type == RecordType::NS && apex {
        let addresses = Data {
            addresses: table.server_addresses().to_vec(),
            pointer: None,
        };
        reply.additionals = addresses.ipv6(&table.server);
        reply.additionals.extend(addresses.ipv4(&table.server));
    }
    ResponseCode::NoError
}

/// One kind of records, of which there are some, stands for all (RFC 8482 section 4.1).
fn any(zone: &Zone, data: &Data, apex: bool, query: &Query) -> Vec<Record> {
    [
        RecordType::AAAA,
        RecordType::A,
        RecordType::PTR,
        RecordType::SOA,
    ]
    .into_iter()
    .map(|kind| of_kind(zone, data, apex, query, kind))
    .find(|records| !records.is_empty())
    .unwrap_or_default()
}

fn of_kind(zone: &Zone, data: &Data, apex: bool, query: &Query, kind: RecordType) -> Vec<Record> {
    let owner = &query.name;
    if kind == RecordType::AAAA {
        data.ipv6(owner)
    } else if kind == RecordType::A {
        data.ipv4(owner)
    } else if kind == RecordType::PTR {
        data.pointers(owner)
    } else if kind == RecordType::SOA && apex {
        vec![zone.soa(owner.clone())]
    } else if kind == RecordType::NS && apex {
        vec![zone.name_server(owner.clone())]
    } else {
        Vec::new()
    }
}
