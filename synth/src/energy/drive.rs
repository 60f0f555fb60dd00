//! What stands around a part: the signals that the array or its surroundings would give it, and the results that it has to give.

use std::cell::RefCell;

use gates::netlist::Netlist;
use golden::block::{Block, PackedBlock};
use golden::mac::pair;
use golden::quantizer::Policy;
use hdl::mac::boundaries;
use hdl::mac::reduced::Nvfp4Pair;
use hdl::quantizer::TABLE_CYCLES;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::data::{Blocks, Pair, Sample};
use super::{ACC, EnergyError};

/// Cycles of a quantizer's reset.
const RESET: usize = 4;

/// What kind of part it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harness {
    Pe { stages: usize },
    Fp8Pe { stages: usize },
    Nvfp4,
    Decoder,
    Serial,
    Parallel,
}

impl Harness {
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Pe { .. } | Self::Fp8Pe { .. } | Self::Nvfp4 => "block pair",
            Self::Decoder | Self::Serial | Self::Parallel => "block",
        }
    }

    pub const fn cycles_per_unit(self) -> usize {
        match self {
            Self::Serial => 16,
            _ => 1,
        }
    }

    /// Cycles until the pipeline is full.
    pub const fn warm_up(self) -> usize {
        match self {
            Self::Pe { .. } | Self::Fp8Pe { .. } | Self::Nvfp4 => 16,
            Self::Decoder => 1,
            Self::Serial => self.start() + 76,
            Self::Parallel => self.start() + 28,
        }
    }

    /// Cycle in which a quantizer gets its first element. The parallel one fills its tables behind the reset; two cycles more, so that
    /// nothing hangs on which edge counts.
    const fn start(self) -> usize {
        match self {
            Self::Parallel => RESET + TABLE_CYCLES + 2,
            _ => RESET,
        }
    }

    /// Cycles from a pair to its place in the accumulator.
    fn latency(self) -> usize {
        match self {
            Self::Pe { stages } | Self::Fp8Pe { stages } => boundaries(stages)
                .iter()
                .filter(|&&present| present)
                .count(),
            Self::Nvfp4 => Nvfp4Pair::latency(true),
            _ => 0,
        }
    }
}

/// An output that is known.
#[derive(Clone, Copy)]
struct Expected {
    cycle: usize,
    port: &'static str,
    value: u128,
    bits: usize,
}

/// All inputs of all streams, and what they lead to.
pub(super) struct Bench {
    part: &'static str,
    harness: Harness,
    inputs: Vec<Vec<u64>>,
    /// By stream, in the order of cycles.
    expected: Vec<Vec<Expected>>,
    /// By stream: blocks in the order in which a quantizer has to give them.
    blocks: Vec<Vec<PackedBlock>>,
    /// By stream: how many of them have been seen, and in which cycle last.
    seen: RefCell<Vec<(usize, usize)>>,
}

/// Sets bits of input words.
struct Writer<'a> {
    part: &'static str,
    netlist: &'a Netlist,
    inputs: Vec<Vec<u64>>,
}

impl Writer<'_> {
    fn place(&self, port: &str) -> Result<(usize, usize), EnergyError> {
        self.netlist.input(port).ok_or_else(|| EnergyError::Port {
            part: self.part,
            port: port.to_owned(),
        })
    }

    /// The same value in all streams from a cycle on.
    fn hold(&mut self, port: &str, from: usize, value: u128) -> Result<(), EnergyError> {
        let (at, width) = self.place(port)?;
        for words in self.inputs.iter_mut().skip(from) {
            for bit in 0..width {
                words[at + bit] = if value >> bit & 1 == 1 { u64::MAX } else { 0 };
            }
        }
        Ok(())
    }

    fn set(&mut self, (at, width): (usize, usize), cycle: usize, stream: usize, value: u128) {
        let Some(words) = self.inputs.get_mut(cycle) else {
            return;
        };
        for bit in 0..width {
            let word = &mut words[at + bit];
            *word = *word & !(1 << stream) | ((value >> bit & 1) as u64) << stream;
        }
    }
}

/// A block as the decoder gives it to a row or a column. Twin of `hdl::decoder::BlockDecoder`.
struct Decoded {
    fp8: bool,
    nan: bool,
    scale: u128,
    lanes: [u128; 16],
}

fn magnitude(code: u128) -> (u128, u128) {
    let (exponent, mantissa) = (code >> 3 & 15, code & 7);
    if exponent == 0 {
        (mantissa, 0)
    } else {
        (mantissa | 8, exponent - 1)
    }
}

fn decoded(block: &PackedBlock) -> Decoded {
    /// Magnitudes of E2M1 in half units.
    const E2M1: [u128; 8] = [0, 1, 2, 3, 4, 6, 8, 12];
    let mut nan = false;
    let lanes = std::array::from_fn(|i| {
        let (sign, significand, shift) = if block.tag {
            let code = block.payload >> (8 * i) & 0xFF;
            nan |= code & 0x7F == 0x7F;
            let (significand, shift) = magnitude(code & 0x7F);
            (code >> 7, significand, shift)
        } else {
            let code = block.payload >> (4 * i) & 0xF;
            (code >> 3, E2M1[(code & 7) as usize], 0)
        };
        sign << 8 | significand << 4 | shift
    });
    let (significand, shift) = if block.tag {
        (1, 1)
    } else {
        magnitude(u128::from(block.scale) & 0x7F)
    };
    Decoded {
        fp8: block.tag,
        nan,
        scale: significand << 4 | shift,
        lanes,
    }
}

fn ports(base: &str, writer: &Writer<'_>) -> Result<Vec<(usize, usize)>, EnergyError> {
    (0..16)
        .map(|i| writer.place(&format!("{base}_{i}")))
        .collect()
}

impl Bench {
    /// Inputs for the warm-up and so many cycles of 64 streams. `seed` of `seeds` chooses the slice of tokens.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        part: &'static str,
        harness: Harness,
        netlist: &Netlist,
        sample: &Sample,
        weights: &Blocks,
        acts: &Blocks,
        (seed, seeds): (usize, usize),
        cycles: usize,
    ) -> Result<Self, EnergyError> {
        let length = harness.warm_up() + cycles;
        let bits = netlist.input_bits().len();
        let mut writer = Writer {
            part,
            netlist,
            inputs: vec![vec![0; bits]; length],
        };
        let slice = sample.tokens * seed / seeds..(sample.tokens * (seed + 1) / seeds);
        let slice = if slice.is_empty() {
            0..sample.tokens
        } else {
            slice
        };
        let mut bench = Self {
            part,
            harness,
            inputs: Vec::new(),
            expected: vec![Vec::new(); 64],
            blocks: vec![Vec::new(); 64],
            seen: RefCell::new(vec![(0, 0); 64]),
        };
        // Every part sees the same pairs.
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        match harness {
            Harness::Serial | Harness::Parallel => {
                bench.quantizer(&mut writer, &mut rng, sample, acts, slice, length)?;
            }
            _ => {
                for stream in 0..64 {
                    let pairs = acts.pairs(&mut rng, length, slice.clone(), weights);
                    bench.pairs(&mut writer, stream, &pairs)?;
                }
                bench.constants(&mut writer)?;
            }
        }
        bench.inputs = writer.inputs;
        Ok(bench)
    }

    /// The inputs of a cycle.
    pub fn inputs(&self, cycle: usize) -> &[u64] {
        self.inputs.get(cycle).map_or(&[], Vec::as_slice)
    }

    fn constants(&self, writer: &mut Writer<'_>) -> Result<(), EnergyError> {
        match self.harness {
            Harness::Pe { .. } | Harness::Fp8Pe { .. } => {
                for i in 0..8 {
                    writer.hold(&format!("enable_{i}"), 0, 1)?;
                }
                writer.hold("accumulate", 0, 1)?;
                if matches!(self.harness, Harness::Pe { .. }) {
                    writer.hold("fresh", 0, 1)?;
                    writer.hold("fresh", 10, 0)?;
                }
                Ok(())
            }
            Harness::Nvfp4 => writer.hold("enable", 0, 1),
            _ => Ok(()),
        }
    }

    fn pairs(
        &mut self,
        writer: &mut Writer<'_>,
        stream: usize,
        pairs: &[Pair],
    ) -> Result<(), EnergyError> {
        let latency = self.harness.latency();
        if self.harness == Harness::Decoder {
            let block = writer.place("block")?;
            // Weights and activations pass decoders of the same build.
            for (cycle, pair) in pairs.iter().enumerate() {
                let it = if stream.is_multiple_of(2) {
                    &pair.weight
                } else {
                    &pair.act
                };
                writer.set((block.0, 128), cycle, stream, it.payload);
                let high = u128::from(it.scale) | u128::from(it.tag) << 8;
                writer.set((block.0 + 128, 9), cycle, stream, high);
                let decoded = decoded(it);
                let scale = Expected {
                    cycle,
                    port: "scale",
                    value: decoded.scale,
                    bits: 8,
                };
                let lane = Expected {
                    port: "lane_7",
                    value: decoded.lanes[7],
                    bits: 9,
                    ..scale
                };
                self.expected[stream].extend([scale, lane]);
            }
            return Ok(());
        }
        let four_mode = matches!(self.harness, Harness::Pe { .. });
        let nvfp4 = self.harness == Harness::Nvfp4;
        for (side, weight) in [("weight", true), ("act", false)] {
            let lanes = ports(side, writer)?;
            let optional = |name: &str, wanted: bool| {
                wanted
                    .then(|| writer.place(&format!("{side}_{name}")))
                    .transpose()
            };
            let fp8 = optional("fp8", four_mode)?;
            let nan = optional("nan", !nvfp4)?;
            let scale = optional("scale", four_mode || nvfp4)?;
            for (cycle, pair) in pairs.iter().enumerate() {
                let block = if weight { &pair.weight } else { &pair.act };
                let mut it = decoded(block);
                if nvfp4 {
                    it.scale = block.scale.into();
                    it.lanes = std::array::from_fn(|i| block.payload >> (4 * i) & 0xF);
                }
                for (&place, lane) in lanes.iter().zip(it.lanes) {
                    writer.set(place, cycle, stream, lane);
                }
                for (place, value) in [
                    (fp8, it.fp8.into()),
                    (nan, it.nan.into()),
                    (scale, it.scale),
                ] {
                    if let Some(place) = place {
                        writer.set(place, cycle, stream, value);
                    }
                }
            }
        }
        let edges = if nvfp4 {
            None
        } else {
            Some((writer.place("first")?, writer.place("capture")?))
        };
        let mut sum: i128 = 0;
        for (cycle, it) in pairs.iter().enumerate() {
            let blocks = (Block::unpack(&it.weight), Block::unpack(&it.act));
            let term = match &blocks {
                (Ok(weight), Ok(act)) => pair(weight, act),
                _ => None,
            };
            // No NaN comes out of a finite model.
            let term = i128::from(term.unwrap_or(0));
            if it.first {
                sum = 0;
            }
            sum += term;
            let mut expect = |port, value: i128, bits: usize, cycle| {
                self.expected[stream].push(Expected {
                    cycle,
                    port,
                    value: value as u128 & ((1 << bits) - 1),
                    bits,
                });
            };
            match edges {
                None => expect("term", term, 48, cycle + latency),
                Some((first, capture)) => {
                    let at = cycle + latency;
                    writer.set(first, at, stream, it.first.into());
                    writer.set(capture, at, stream, it.last.into());
                    if it.last {
                        expect("result", sum, ACC, at + 1);
                    }
                }
            }
        }
        Ok(())
    }

    fn quantizer(
        &mut self,
        writer: &mut Writer<'_>,
        rng: &mut ChaCha8Rng,
        sample: &Sample,
        acts: &Blocks,
        slice: std::ops::Range<usize>,
        length: usize,
    ) -> Result<(), EnergyError> {
        let serial = self.harness == Harness::Serial;
        let slots = self.harness.cycles_per_unit();
        writer.hold("reset", 0, 1)?;
        writer.hold("reset", RESET, 0)?;
        writer.hold("x_valid", self.harness.start(), 1)?;
        writer.hold("block_ready", 0, 1)?;
        let scale = writer.place("input_scale")?;
        let threshold = writer.place("threshold")?;
        let last = writer.place("x_last")?;
        let (data, sensitivity) = if serial {
            (
                vec![writer.place("x_data")?],
                vec![writer.place("x_sensitivity")?],
            )
        } else {
            (ports("x_data", writer)?, ports("x_sensitivity", writer)?)
        };
        for stream in 0..64 {
            let start = self.harness.start();
            let rows = sample.rows(rng, (length - start).div_ceil(slots), slice.clone());
            let Some(quantizer) = acts.quantizers.get(rows.site) else {
                continue;
            };
            let t = match quantizer.policy() {
                Policy::Fp8 => 0,
                policy => policy.threshold(),
            };
            for cycle in 0..length {
                let m = quantizer.input_scale().get().to_bits();
                writer.set(scale, cycle, stream, m.into());
                writer.set(threshold, cycle, stream, t.into());
            }
            let mut cycle = start;
            for row in &rows.rows {
                self.blocks[stream].extend(quantizer.blocks(row).map(|block| block.pack()));
                let codes = &quantizer.sensitivity().codes;
                let width = data.len();
                for (beat, x) in row.chunks(width).enumerate() {
                    let codes = codes.iter().skip(beat * width);
                    for (((&at, &sensitive), x), code) in
                        data.iter().zip(&sensitivity).zip(x).zip(codes)
                    {
                        writer.set(at, cycle, stream, x.to_bits().into());
                        writer.set(sensitive, cycle, stream, code.to_bits().into());
                    }
                    let ends = (beat + 1) * width >= row.len();
                    writer.set(last, cycle, stream, ends.into());
                    cycle += 1;
                }
            }
        }
        Ok(())
    }

    /// Compares what is known of a cycle.
    pub fn check(
        &self,
        cycle: usize,
        stream: u32,
        output: impl Fn(&str) -> Option<u128>,
    ) -> Result<(), EnergyError> {
        let read = |port: &'static str| {
            output(port).ok_or_else(|| EnergyError::Port {
                part: self.part,
                port: port.to_owned(),
            })
        };
        let equal = |port, found, expected| {
            if found == expected {
                return Ok(());
            }
            Err(EnergyError::Mismatch {
                part: self.part,
                cycle,
                stream,
                port,
                expected,
                found,
            })
        };
        let lane = stream as usize;
        if matches!(self.harness, Harness::Serial | Harness::Parallel) {
            let mut seen = self.seen.borrow_mut();
            let (number, before) = &mut seen[lane];
            if cycle < *before {
                *number = 0;
            }
            *before = cycle;
            if cycle < self.harness.start() {
                return Ok(());
            }
            // Sustained without a pause, or the cycles of a block are not what the energy is divided by.
            equal("x_ready", read("x_ready")?, 1)?;
            if read("block_valid")? == 1 {
                let Some(block) = self.blocks[lane].get(*number) else {
                    return equal("block_valid", 1, 0);
                };
                *number += 1;
                equal("block_fp8", read("block_fp8")?, block.tag.into())?;
                equal("block_payload", read("block_payload")?, block.payload)?;
                if !block.tag {
                    equal("block_scale", read("block_scale")?, block.scale.into())?;
                }
            }
            return Ok(());
        }
        let expected = &self.expected[lane];
        let from = expected.partition_point(|it| it.cycle < cycle);
        for it in expected[from..].iter().take_while(|it| it.cycle == cycle) {
            let mask = (1u128 << it.bits) - 1;
            equal(it.port, read(it.port)? & mask, it.value)?;
        }
        Ok(())
    }
}
