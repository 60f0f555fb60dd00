//! The engine of a board at its pins, in Verilator, against its twin: every reply, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{is_full, verilator, verilator_for_short_runs};
use hdl::board::BoardConfig;
use hdl::board::protocol::{
    Deframer, FIRST_COLUMN, MAX_COMMAND_BODY, MAX_REPLY_BODY, Operation, REPLY_HEADER, Received,
    Status, encode, place,
};
use hdl::build::emit_board;
use hdl::config::{ArrayConfig, Multiplier};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbench::board::DeviceTwin;
use testbench::design::Design;
use testbench::serial::{BitLength, Limits, SerialModel, SerialPorts};

const SESSION: u8 = 0x5A;

/// Engine and twin on the same line.
struct Pair {
    model: SerialModel,
    twin: DeviceTwin,
    config: BoardConfig,
    sequence: u8,
    rng: ChaCha8Rng,
    /// Replies by status, to see that all were met.
    met: [usize; 8],
}

impl Pair {
    fn new(config: BoardConfig, seed: u64) -> Self {
        let design = Design::from(&emit_board(config).unwrap());
        let verilator = if is_full() {
            verilator().clone()
        } else {
            verilator_for_short_runs()
        };
        let ports = SerialPorts::of(&design).unwrap();
        let bit = BitLength::new(config.clocks_per_bit, 0).unwrap();
        let mut model = SerialModel::new(verilator.simulate(&design).unwrap(), ports, bit).unwrap();
        assert!(model.reset(&mut Vec::new()).unwrap());
        Self {
            model,
            twin: DeviceTwin::new(config).unwrap(),
            config,
            sequence: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            met: [0; 8],
        }
    }

    /// Sends bytes to both and compares what they answer.
    fn exchange(&mut self, line: &[u8], what: &str) -> Vec<u8> {
        let limits = Limits {
            quiet_cycles: Some(40 * self.config.clocks_per_bit as u64 + 400),
            ..Limits::cycles(10_000_000)
        };
        let mut answer = Vec::new();
        self.model.run(line, &mut answer, &limits).unwrap();
        let mut expected = Vec::new();
        for &byte in line {
            self.twin.receive(byte);
            while let Some(byte) = self.twin.transmit() {
                expected.push(byte);
            }
        }
        assert_eq!(answer, expected, "{what}: {line:02x?} ({:?})", self.config);
        answer
    }

    /// Sends a command of the present session with the next sequence number; gives the reply's status.
    fn command(&mut self, operation: u8, body: &[u8]) -> u8 {
        let mut content = vec![SESSION, self.sequence, operation];
        content.extend_from_slice(body);
        let reply = self.exchange(&encode(&content), "command");
        let expected = self.twin_expected();
        self.sequence = expected;
        let mut deframer = Deframer::new(REPLY_HEADER + MAX_REPLY_BODY);
        let Some(Received::Frame(content)) = reply.iter().find_map(|&byte| deframer.push(byte))
        else {
            panic!("no reply: {reply:02x?}");
        };
        let status = content[2];
        self.met[usize::from(status & 7)] += 1;
        status
    }

    fn twin_expected(&self) -> u8 {
        self.sequence.wrapping_add(1)
    }

    fn open(&mut self) {
        self.exchange(&encode(&[SESSION, 7, Operation::Open as u8]), "open");
        self.sequence = 8;
    }

    /// Groups of blocks with few NaNs and scales that are codes.
    fn groups(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for start in (0..count).step_by(8) {
            let tags: u8 = self.rng.random();
            bytes.push(tags);
            for block in 0..(count - start).min(8) {
                if tags >> block & 1 == 1 {
                    let nan = self.rng.random_ratio(1, 30);
                    bytes.extend((0..16).map(|_| {
                        let code: u8 = self.rng.random();
                        if code & 0x7F == 0x7F && !nan {
                            0x7E
                        } else {
                            code
                        }
                    }));
                } else {
                    bytes.push(self.rng.random_range(0..=0x7E));
                    bytes.extend((0..8).map(|_| self.rng.random::<u8>()));
                }
            }
        }
        bytes
    }

    fn unit(&mut self) -> u8 {
        let (rows, cols) = (self.config.array.rows as u8, self.config.array.cols as u8);
        if self.rng.random() {
            self.rng.random_range(0..rows)
        } else {
            FIRST_COLUMN + self.rng.random_range(0..cols)
        }
    }

    /// Fills all memories, so that nothing undefined is multiplied.
    fn fill(&mut self) {
        let array = self.config.array;
        let rows = (0..array.rows).map(|row| (row as u8, array.weight_blocks));
        let cols = (0..array.cols).map(|col| (FIRST_COLUMN + col as u8, array.act_blocks));
        for (unit, depth) in rows.chain(cols).collect::<Vec<_>>() {
            for address in (0..depth).step_by(16) {
                let mut body = vec![unit];
                body.extend((address as u16).to_le_bytes());
                body.extend(self.groups(16.min(depth - address)));
                assert_eq!(self.command(Operation::LoadBlocks as u8, &body), 0);
            }
        }
        if self.config.quantizer {
            for first in (0..self.config.channels()).step_by(256) {
                let mut body = (first as u16).to_le_bytes().to_vec();
                body.extend((0..256).map(|_| self.rng.random_range(0..=0x7Eu8)));
                assert_eq!(self.command(Operation::LoadSensitivities as u8, &body), 0);
            }
        }
    }

    /// A scale that numerics allows.
    fn scale(&mut self) -> u32 {
        let exponent: u32 = self.rng.random_range(127 - 14..127 + 14);
        self.rng.random::<u32>() & 0x807F_FFFF | exponent << 23
    }

    /// A command of any kind; most of them make sense.
    fn random_command(&mut self) -> (u8, Vec<u8>) {
        let pick = self.rng.random_range(0..100);
        let array = self.config.array;
        if pick < 25 {
            let count = self.rng.random_range(0..=30);
            let mut body = vec![self.unit()];
            body.extend(self.rng.random::<u16>().to_le_bytes());
            body.extend(self.groups(count));
            if self.rng.random_ratio(1, 8) {
                let cut = self.rng.random_range(0..=body.len());
                body.truncate(cut);
            }
            if self.rng.random_ratio(1, 12)
                && let Some(unit) = body.first_mut()
            {
                *unit = self.rng.random();
            }
            (Operation::LoadBlocks as u8, body)
        } else if pick < 60 {
            let mut body = Vec::new();
            body.extend(self.rng.random::<u16>().to_le_bytes());
            body.extend(self.rng.random::<u16>().to_le_bytes());
            body.extend(self.rng.random_range(0..40u16).to_le_bytes());
            let most = (63 / (array.rows * array.cols)).max(1) as u8;
            let weights = self.rng.random_range(0..=most.min(9));
            body.push(weights);
            body.push(
                self.rng
                    .random_range(0..=(most / weights.max(1)).saturating_add(1)),
            );
            body.push(self.rng.random_range(0..4));
            if self.rng.random_ratio(1, 20) {
                body.push(0);
            }
            (Operation::Multiply as u8, body)
        } else if pick < 70 {
            // Not BUSY, which the twin doesn't count.
            let (first, most) =
                [(0, place::BUSY), (place::STEPS, 20)][usize::from(self.rng.random::<bool>())];
            let first = self.rng.random_range(first..most);
            let count = self.rng.random_range(0..=most - first);
            (
                Operation::ReadRegisters as u8,
                vec![first as u8, count as u8],
            )
        } else if pick < 78 {
            let mut body = vec![place::OUTPUT_SCALE as u8];
            for _ in 0..2 {
                body.extend(self.scale().to_le_bytes());
            }
            body.extend(self.rng.random_range(0..1u64 << 45).to_le_bytes());
            if self.rng.random_ratio(1, 5) {
                let cut = self.rng.random_range(0..body.len());
                body.truncate(cut);
            }
            (Operation::WriteRegisters as u8, body)
        } else if pick < 90 {
            let count = self.rng.random_range(0..=15);
            let mut body = vec![FIRST_COLUMN + self.rng.random_range(0..array.cols as u8)];
            body.extend(self.rng.random::<u16>().to_le_bytes());
            body.extend(self.rng.random::<u16>().to_le_bytes());
            for _ in 0..16 * count {
                let exponent: u16 = self.rng.random_range(127 - 16..127 + 16);
                let mut bits = self.rng.random::<u16>() & 0x807F | exponent << 7;
                if self.rng.random_ratio(1, 300) {
                    bits = self.rng.random();
                }
                body.extend(bits.to_le_bytes());
            }
            if self.rng.random_ratio(1, 12) {
                body.push(1);
            }
            if self.rng.random_ratio(1, 12)
                && let Some(unit) = body.first_mut()
            {
                *unit = self.rng.random();
            }
            (Operation::LoadElements as u8, body)
        } else if pick < 95 {
            let mut body = self.rng.random::<u16>().to_le_bytes().to_vec();
            let count = self.rng.random_range(0..100);
            body.extend((0..count).map(|_| self.rng.random_range(0..=0x7Eu8)));
            (Operation::LoadSensitivities as u8, body)
        } else {
            let length = self.rng.random_range(0..20);
            let body = (0..length).map(|_| self.rng.random()).collect();
            // No operation of these numbers.
            (self.rng.random_range(8..=255), body)
        }
    }

    /// What a bad line and a confused host send.
    fn nuisance(&mut self) {
        let mut content = vec![SESSION, self.sequence, Operation::ReadRegisters as u8, 0, 4];
        match self.rng.random_range(0..8) {
            0 => content[0] = self.rng.random(),
            1 => content[1] = self.rng.random(),
            // The last command once more, or at least its number.
            2 | 3 => content[1] = self.sequence.wrapping_sub(1),
            4 => content = vec![SESSION, self.rng.random(), Operation::Open as u8],
            5 => content = vec![SESSION, self.rng.random(), Operation::Open as u8, 0],
            6 => content.truncate(self.rng.random_range(0..3)),
            _ => {
                content = vec![
                    0;
                    self.rng
                        .random_range(MAX_COMMAND_BODY..MAX_COMMAND_BODY + 20)
                ];
            }
        }
        let executed = content.len() == 5 && content[..2] == [SESSION, self.sequence];
        let mut line = encode(&content);
        if content[..content.len().min(2)] != [SESSION, self.sequence] && self.rng.random() {
            let place = self.rng.random_range(0..line.len());
            line[place] ^= 1 << self.rng.random_range(0..8);
            line.push(0x7E);
        }
        self.exchange(&line, "nuisance");
        // A broken one may have been cut into an executed one only with a valid check.
        if executed {
            self.sequence = self.sequence.wrapping_add(1);
        }
    }
}

fn compare(config: BoardConfig, commands: usize, seed: u64) {
    let mut pair = Pair::new(config, seed);
    pair.exchange(
        &encode(&[SESSION, 0, Operation::ReadRegisters as u8, 0, 1]),
        "closed",
    );
    pair.exchange(&encode(&[0, 0, Operation::Open as u8]), "no session");
    pair.open();
    let mut scales = vec![place::OUTPUT_SCALE as u8];
    for _ in 0..2 {
        scales.extend(pair.scale().to_le_bytes());
    }
    scales.extend(0x0123_4567_89AB_u64.to_le_bytes());
    pair.command(Operation::WriteRegisters as u8, &scales);
    pair.fill();
    for _ in 0..commands {
        if pair.rng.random_ratio(1, 10) {
            pair.nuisance();
        } else {
            let (operation, body) = pair.random_command();
            let status = pair.command(operation, &body);
            if operation == Operation::LoadBlocks as u8 && status == Status::Refused as u8 {
                // What an incomplete block leaves behind is not defined.
                pair.fill();
            }
        }
    }
    for status in [Status::Done, Status::Unknown, Status::Refused] {
        assert!(pair.met[status as usize] > 0, "never {}", status.name());
    }
}

/// Commands of each engine; the long sweep is worth models that take long to compile.
fn commands() -> usize {
    if is_full() { 20_000 } else { 400 }
}

/// An array whose memories are soon filled.
fn small() -> ArrayConfig {
    ArrayConfig {
        rows: 1,
        cols: 1,
        weight_blocks: 16,
        act_blocks: 32,
        max_k: 256,
        ..ArrayConfig::default()
    }
}

#[test]
fn an_engine_of_half_width_answers_like_its_twin() {
    let config = BoardConfig {
        array: ArrayConfig {
            lanes: 8,
            pipeline: 5,
            ..small()
        },
        ..BoardConfig::default()
    };
    compare(config, commands(), 1);
}

#[test]
fn an_engine_with_both_quantizers_answers_like_its_twin() {
    let config = BoardConfig {
        array: ArrayConfig {
            rows: 2,
            cols: 3,
            max_k: 1024,
            multiplier: Multiplier::Dsp,
            ..small()
        },
        clocks_per_bit: 5,
        requantizer: true,
        quantizer: true,
    };
    compare(config, commands(), 2);
}

#[test]
fn a_deep_engine_answers_like_its_twin() {
    let config = BoardConfig {
        array: ArrayConfig {
            pipeline: 9,
            ..small()
        },
        ..BoardConfig::default()
    };
    compare(config, commands(), 3);
}

#[test]
fn an_engine_that_requantizes_answers_like_its_twin() {
    let config = BoardConfig {
        array: ArrayConfig {
            lanes: 8,
            rows: 3,
            cols: 2,
            pipeline: 3,
            ..small()
        },
        clocks_per_bit: 16,
        requantizer: true,
        quantizer: false,
    };
    compare(config, commands(), 4);
}
