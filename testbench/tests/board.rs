//! The twin of a board's engine, frame by frame.
// A helper of a test may fail it.
#![allow(clippy::unwrap_used, clippy::panic)]

use golden::block::Block;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::mac::Accumulator;
use golden::quantizer::{InputScale, decide, rescale};
use golden::requantize::{OutputScale, requantize};
use golden::strategies::{block, config, z_block};
use half::bf16;
use hdl::board::BoardConfig;
use hdl::board::protocol::{Deframer, MAX_REPLY_BODY, Operation, Received, Status, encode, place};
use hdl::config::ArrayConfig;
use proptest::prelude::*;
use testbench::board::DeviceTwin;

const SESSION: u8 = 0x7E;

fn board(rows: usize, cols: usize, full: bool) -> BoardConfig {
    BoardConfig {
        array: ArrayConfig {
            rows,
            cols,
            weight_blocks: 16,
            act_blocks: 8,
            max_k: 64,
            ..ArrayConfig::default()
        },
        requantizer: full,
        quantizer: full,
        ..BoardConfig::default()
    }
}

#[derive(Debug, PartialEq, Clone)]
struct Reply {
    session: u8,
    sequence: u8,
    status: Status,
    expected: u8,
    body: Vec<u8>,
}

struct Host {
    twin: DeviceTwin,
    sequence: u8,
}

impl Host {
    fn new(config: BoardConfig) -> Self {
        Self {
            twin: DeviceTwin::new(config).unwrap(),
            sequence: 0,
        }
    }

    fn open(config: BoardConfig) -> Self {
        let mut host = Self::new(config);
        assert_eq!(host.next(Operation::Open, &[]).status, Status::Done);
        host
    }

    fn line(&mut self, bytes: &[u8]) -> Vec<Reply> {
        for &byte in bytes {
            self.twin.receive(byte);
        }
        self.replies()
    }

    fn replies(&mut self) -> Vec<Reply> {
        let mut deframer = Deframer::new(508);
        std::iter::from_fn(|| self.twin.transmit())
            .filter_map(|byte| deframer.push(byte))
            .map(|received| match received {
                Received::Frame(content) => Reply {
                    session: content[0],
                    sequence: content[1],
                    status: Status::from_code(content[2]).unwrap(),
                    expected: content[3],
                    body: content[4..].to_vec(),
                },
                Received::Damaged => panic!("the twin sends whole frames"),
            })
            .collect()
    }

    fn frame(&mut self, session: u8, sequence: u8, operation: u8, body: &[u8]) -> Reply {
        let mut content = vec![session, sequence, operation];
        content.extend(body);
        let mut replies = self.line(&encode(&content));
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    fn next(&mut self, operation: Operation, body: &[u8]) -> Reply {
        let reply = self.frame(SESSION, self.sequence, operation as u8, body);
        assert_eq!(reply.sequence, self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        assert_eq!(reply.expected, self.sequence);
        reply
    }

    fn register(&mut self, number: usize) -> u32 {
        let reply = self.next(Operation::ReadRegisters, &[number as u8, 1]);
        u32::from_le_bytes(reply.body.try_into().unwrap())
    }

    fn load(&mut self, unit: u8, address: u16, blocks: &[Block]) -> Status {
        let mut body = vec![unit];
        body.extend(address.to_le_bytes());
        for group in blocks.chunks(8) {
            body.push(
                (0..)
                    .zip(group)
                    .map(|(i, block)| u8::from(block.is_fp8()) << i)
                    .sum(),
            );
            for block in group {
                let packed = block.pack();
                let bytes = packed.payload.to_le_bytes();
                if packed.tag {
                    body.extend(bytes);
                } else {
                    body.push(packed.scale);
                    body.extend(&bytes[..8]);
                }
            }
        }
        self.next(Operation::LoadBlocks, &body).status
    }

    fn multiply(&mut self, w: u16, a: u16, k: u16, tiles: [u8; 2], form: u8) -> Reply {
        let mut body = Vec::new();
        for number in [w, a, k] {
            body.extend(number.to_le_bytes());
        }
        body.extend([tiles[0], tiles[1], form]);
        self.next(Operation::Multiply, &body)
    }
}

fn ones() -> Block {
    Block::Fp8 {
        elements: [E4m3::quantize(1.0); BLOCK],
    }
}

#[test]
fn sessions_open_once_and_commands_run_once() {
    let mut host = Host::new(board(1, 1, false));
    let closed = host.frame(SESSION, 9, Operation::ReadRegisters as u8, &[0, 1]);
    assert_eq!(
        (closed.session, closed.status, closed.expected),
        (0, Status::Closed, 0)
    );
    let zero = host.frame(0, 3, Operation::Open as u8, &[]);
    assert_eq!((zero.session, zero.status), (0, Status::Closed));
    let with_body = host.frame(SESSION, 3, Operation::Open as u8, &[1]);
    assert_eq!((with_body.session, with_body.status), (0, Status::Refused));
    let open = host.frame(SESSION, 255, Operation::Open as u8, &[]);
    assert_eq!(
        open,
        Reply {
            session: SESSION,
            sequence: 255,
            status: Status::Done,
            expected: 0,
            body: vec![]
        }
    );
    // Once more, and with any number: nothing changes.
    assert_eq!(host.frame(SESSION, 255, Operation::Open as u8, &[]), open);
    assert_eq!(
        host.frame(SESSION, 77, Operation::Open as u8, &[]).expected,
        0
    );

    let read = [place::FRAMES as u8, 3];
    let first = host.frame(SESSION, 0, Operation::ReadRegisters as u8, &read);
    // One `Open` was executed; five frames were not.
    assert_eq!(first.body, [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    // The repeat is answered as before, although the counter has moved.
    assert_eq!(
        host.frame(SESSION, 0, Operation::ReadRegisters as u8, &read),
        first
    );
    for (session, sequence, status) in [
        (SESSION, 2, Status::OutOfOrder),
        (SESSION, 255, Status::OutOfOrder),
        (SESSION ^ 1, 1, Status::Closed),
    ] {
        let reply = host.frame(session, sequence, Operation::ReadRegisters as u8, &read);
        assert_eq!(
            (reply.session, reply.sequence, reply.status, reply.expected),
            (SESSION, sequence, status, 1)
        );
        assert!(reply.body.is_empty());
    }
    let second = host.frame(SESSION, 1, Operation::ReadRegisters as u8, &read);
    assert_eq!(second.body, [2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0]);

    // Another session forgets the numbers of the one before.
    let other = host.frame(1, 200, Operation::Open as u8, &[]);
    assert_eq!((other.session, other.expected), (1, 201));
    host.twin.reset();
    let closed = host.frame(1, 201, Operation::ReadRegisters as u8, &read);
    assert_eq!((closed.session, closed.status), (0, Status::Closed));
}

#[test]
fn damage_is_told_with_the_number_that_is_due() {
    let mut host = Host::open(board(1, 1, false));
    let mut line = encode(&[SESSION, 1, Operation::ReadRegisters as u8, 0, 1]);
    line[3] ^= 4;
    let damaged = Reply {
        session: SESSION,
        sequence: 1,
        status: Status::Damaged,
        expected: 1,
        body: vec![],
    };
    assert_eq!(host.line(&line), std::slice::from_ref(&damaged));
    // Intact, but no command.
    assert_eq!(
        host.line(&encode(&[SESSION, 1])),
        std::slice::from_ref(&damaged)
    );
    // Too long.
    assert_eq!(
        host.line(&encode(&[1; 509])),
        std::slice::from_ref(&damaged)
    );
    line[3] ^= 4;
    host.twin.receive(line[0]);
    host.twin.framing_error();
    assert_eq!(host.line(&line[1..]), [damaged]);
    host.sequence = 1;
    assert_eq!(host.register(place::DAMAGED), 4);
}

#[test]
fn two_commands_wait_and_the_third_is_overrun() {
    let mut host = Host::open(board(1, 1, false));
    let command = |sequence| encode(&[SESSION, sequence, Operation::ReadRegisters as u8, 0, 126]);
    // The first one's reply keeps the sender busy, as nothing is taken from it.
    for sequence in 1..=5 {
        for byte in command(sequence) {
            host.twin.receive(byte);
        }
    }
    let replies = host.replies();
    let seen: Vec<_> = replies.iter().map(|r| (r.sequence, r.status)).collect();
    assert_eq!(
        seen,
        [
            (1, Status::Done),
            (2, Status::Done),
            (3, Status::Done),
            (4, Status::Overrun)
        ]
    );
    assert_eq!(replies[3].expected, 4);
    host.sequence = 4;
    assert_eq!(host.register(place::REFUSED), 2);
}

#[test]
fn registers_say_what_the_board_is() {
    let mut host = Host::open(board(3, 2, true));
    assert_eq!(host.register(place::ID), 0x464D_4742);
    assert_eq!(host.register(place::VERSION), 0x0001_0000);
    assert_eq!(host.register(place::ARRAY), 0x3403_0203);
    assert_eq!(host.register(place::MEMORY), 0x0008_0010);
    assert_eq!(host.register(place::LINE), 4);
    assert_eq!(host.register(200), 0);
    let write = [
        place::INPUT_SCALE as u8,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
    ];
    assert_eq!(
        host.next(Operation::WriteRegisters, &write).status,
        Status::Done
    );
    let read = host.next(Operation::ReadRegisters, &[place::OUTPUT_SCALE as u8, 4]);
    assert_eq!(
        read.body,
        [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    );
    host.next(Operation::WriteRegisters, &[0, 1, 2, 3, 4]);
    assert_eq!(host.register(place::ID), 0x464D_4742);
    // Numbers begin anew behind 255.
    let wrapped = host.next(Operation::ReadRegisters, &[255, 2]).body;
    assert_eq!(wrapped[4..], 0x464D_4742_u32.to_le_bytes());

    // A board that has neither unit has neither register.
    let mut host = Host::open(board(1, 1, false));
    host.next(
        Operation::WriteRegisters,
        &[place::OUTPUT_SCALE as u8, 1, 2, 3, 4, 1, 2, 3, 4],
    );
    assert_eq!(host.register(place::OUTPUT_SCALE), 0);
    assert_eq!(host.register(place::INPUT_SCALE), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut host = Host::open(board(3, 2, false));
    let refused = [
        (Operation::ReadRegisters, vec![0]),
        (Operation::ReadRegisters, vec![0, 127]),
        (Operation::ReadRegisters, vec![0, 1, 0]),
        (Operation::WriteRegisters, vec![]),
        (Operation::WriteRegisters, vec![10, 0, 0, 0]),
        (Operation::LoadBlocks, vec![0, 0]),
        // A group of an FP8 block with 15 bytes, and one whose scale is there only.
        (
            Operation::LoadBlocks,
            [vec![0, 0, 0, 1], vec![0; 15]].concat(),
        ),
        (Operation::LoadBlocks, vec![0, 0, 0, 0, 5]),
        // No such row, no such column.
        (Operation::LoadBlocks, vec![3, 0, 0]),
        (Operation::LoadBlocks, vec![0x82, 0, 0]),
        (Operation::Multiply, vec![0, 0, 0, 0, 1, 0, 1, 1]),
        (Operation::Multiply, vec![0, 0, 0, 0, 0, 0, 1, 1, 0]),
        (Operation::Multiply, vec![0, 0, 0, 0, 1, 0, 0, 1, 0]),
        (Operation::Multiply, vec![0, 0, 0, 0, 1, 0, 1, 0, 0]),
        // Eleven tiles of six results of eight bytes.
        (Operation::Multiply, vec![0, 0, 0, 0, 1, 0, 11, 1, 0]),
        // No requantizer.
        (Operation::Multiply, vec![0, 0, 0, 0, 1, 0, 1, 1, 1]),
    ];
    for (operation, body) in refused {
        let reply = host.next(operation, &body);
        assert_eq!(
            (reply.status, reply.body.len()),
            (Status::Refused, 0),
            "{operation:?} {body:?}"
        );
    }
    for operation in [Operation::LoadElements, Operation::LoadSensitivities] {
        assert_eq!(
            host.next(operation, &[0x80, 0, 0, 0, 0]).status,
            Status::Unknown
        );
    }
    let unknown = host.frame(SESSION, host.sequence, 0x55, &[1, 2, 3]);
    assert_eq!(
        (unknown.status, unknown.expected),
        (Status::Unknown, host.sequence + 1)
    );
    host.sequence += 1;
    let largest = host.multiply(0, 0, 1, [10, 1], 0);
    assert_eq!((largest.status, largest.body.len()), (Status::Done, 480));
    assert!(largest.body.len() <= MAX_REPLY_BODY);
    // The steps of the one that ran, and of the one whose results were too many: that is found out when they come.
    assert_eq!(host.register(place::STEPS), 21);
}

#[test]
fn addresses_wrap_and_unwritten_words_show() {
    let mut host = Host::open(board(1, 1, false));
    let result = |reply: &Reply| i64::from_le_bytes(reply.body[..8].try_into().unwrap());
    assert_eq!(host.load(0, 15, &[ones(), ones()]), Status::Done);
    assert_eq!(host.load(0x80, 23, &[ones(), ones()]), Status::Done);
    let product = host.multiply(31, 7, 2, [1, 1], 0);
    assert_eq!(result(&product), 32 << 20);
    let unwritten = host.multiply(15, 7, 3, [1, 1], 0);
    assert_eq!(result(&unwritten), i64::MIN);
}

#[test]
fn accumulators_wrap_at_their_width() {
    let mut host = Host::open(board(1, 1, false));
    let largest = Block::Fp4 {
        scale: Ue4m3::MAX,
        elements: [E2m1::from_low_nibble(7); BLOCK],
    };
    host.load(0, 0, &[largest; 16]);
    host.load(0x80, 0, &[largest; 8]);
    let mut sum = Accumulator::new();
    for _ in 0..24 {
        sum.add(&largest, &largest);
    }
    assert!(sum.value() >= 1 << 51);
    let reply = host.multiply(0, 0, 24, [1, 1], 0);
    let value = i64::from_le_bytes(reply.body.try_into().unwrap());
    assert_eq!(i128::from(value), sum.value() - (1 << 52));
}

proptest! {
    #![proptest_config(config(64))]

    /// Tiles lie one behind the other, results come in the order of the page.
    #[test]
    fn products_are_goldens(
        weights in prop::collection::vec(block(), 3 * 2 * 2),
        acts in prop::collection::vec(block(), 2 * 2 * 2),
        scale in golden::strategies::multiplier(),
    ) {
        let mut host = Host::open(board(3, 2, true));
        let at = |blocks: &[Block], unit: usize, tile: usize, k: usize, units: usize| blocks[(tile * units + unit) * 2 + k];
        for row in 0..3 {
            let blocks: Vec<_> = (0..4).map(|i| at(&weights, row, i / 2, i % 2, 3)).collect();
            prop_assert_eq!(host.load(row as u8, 3, &blocks), Status::Done);
        }
        for column in 0..2 {
            let blocks: Vec<_> = (0..4).map(|i| at(&acts, column, i / 2, i % 2, 2)).collect();
            prop_assert_eq!(host.load(0x80 + column as u8, 2, &blocks), Status::Done);
        }
        let mut body = vec![place::OUTPUT_SCALE as u8];
        body.extend(scale.to_bits().to_le_bytes());
        host.next(Operation::WriteRegisters, &body);
        let accumulators = host.multiply(3, 2, 2, [2, 2], 0).body;
        let results = host.multiply(3, 2, 2, [2, 2], 1).body;
        prop_assert_eq!((accumulators.len(), results.len()), (24 * 8, 24 * 2));
        let mut index = 0;
        for weight_tile in 0..2 {
            for act_tile in 0..2 {
                for column in 0..2 {
                    for row in 0..3 {
                        let mut sum = Accumulator::new();
                        for k in 0..2 {
                            sum.add(&at(&weights, row, weight_tile, k, 3), &at(&acts, column, act_tile, k, 2));
                        }
                        let value = i64::from_le_bytes(accumulators[8 * index..][..8].try_into().unwrap());
                        let expected = if sum.is_nan() { i64::MIN } else { sum.value() as i64 };
                        prop_assert_eq!(value, expected);
                        let result = u16::from_le_bytes(results[2 * index..][..2].try_into().unwrap());
                        let m = OutputScale::new(scale).unwrap();
                        prop_assert_eq!(result, requantize(sum.value(), sum.is_nan(), m).to_bits());
                        index += 1;
                    }
                }
            }
        }
    }

    /// Elements become the blocks that golden makes of them, in the reply and in the memory.
    #[test]
    fn elements_become_goldens_blocks(
        x in prop::collection::vec(z_block(), 3),
        codes in golden::strategies::sensitivity(),
        threshold in golden::strategies::threshold(),
        scale in golden::strategies::multiplier(),
    ) {
        let mut host = Host::open(board(1, 1, true));
        let mut body = 240u16.to_le_bytes().to_vec();
        // The last block's channels, and behind them the first ones'.
        body.extend(codes.iter().chain(&codes).map(|code| code.to_bits()));
        prop_assert_eq!(host.next(Operation::LoadSensitivities, &body).status, Status::Done);
        let mut body = vec![place::INPUT_SCALE as u8];
        body.extend(scale.to_bits().to_le_bytes());
        body.extend(threshold.to_le_bytes());
        host.next(Operation::WriteRegisters, &body);
        let mut body = vec![0x80, 7, 0, 15, 0];
        body.extend(x.iter().flatten().flat_map(|x| x.to_bits().to_le_bytes()));
        let reply = host.next(Operation::LoadElements, &body);
        prop_assert_eq!(reply.status, Status::Done);
        prop_assert_eq!(reply.body.len(), 3 * 18);
        let m = InputScale::new(scale).unwrap();
        let sensitivities = [codes, codes, [Ue4m3::ZERO; BLOCK]];
        let mut sum = Accumulator::new();
        for (index, (x, f)) in x.iter().zip(&sensitivities).enumerate() {
            let x: &[bf16; BLOCK] = x;
            let expected = decide(&x.map(|x| rescale(x, m)), f, threshold).block;
            let packed = expected.pack();
            let bytes = &reply.body[18 * index..][..18];
            prop_assert_eq!(&bytes[..16], &packed.payload.to_le_bytes());
            prop_assert_eq!(&bytes[16..], &[packed.scale, u8::from(packed.tag)]);
            sum.add(&ones(), &expected);
        }
        host.load(0, 0, &[ones(); 3]);
        let product = host.multiply(0, 7, 3, [1, 1], 0).body;
        let value = i64::from_le_bytes(product.try_into().unwrap());
        prop_assert_eq!(value, if sum.is_nan() { i64::MIN } else { sum.value() as i64 });
    }
}
