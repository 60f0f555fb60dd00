//! Stimuli and expected results of the golden model, with a self-checking Verilog testbench and one for cocotb.

use std::fmt::Write;

use golden::block::{Block, PackedBlock};
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::mac::Accumulator;
use golden::quantizer::{InputScale, decide, rescale};
use golden::requantize::{OutputScale, requantize};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::build::TOP;
use crate::config::ArrayConfig;
use crate::decoder::BLOCK_BITS;
use crate::emit::Port;

/// Results that the array's vectors have at least, in whole tiles. An interpreting simulator takes minutes for many tiles
/// of a large array.
const RESULTS: usize = 200;
/// Blocks in the quantizer's vectors.
const QUANTIZER_BLOCKS: usize = 96;
/// Streams that there are vectors for: three go in, four come out.
pub const STREAMS: [&str; 7] = ["weight", "act", "out", "x", "payload", "scale", "tag"];
/// The vectors' multipliers, exact in FP32.
const OUTPUT_SCALE: f32 = 1.0 / 4096.0;
const INPUT_SCALE: f32 = 1.5;

fn random_block(rng: &mut ChaCha8Rng) -> Block {
    if rng.random() {
        let nan = rng.random_ratio(1, 40);
        Block::Fp8 {
            elements: std::array::from_fn(|_| {
                let element = E4m3::from_bits(rng.random());
                if element.is_nan() && !nan {
                    E4m3::ZERO
                } else {
                    element
                }
            }),
        }
    } else {
        Block::Fp4 {
            scale: Ue4m3::from_bits(rng.random_range(0..=0x7E)).unwrap_or(Ue4m3::ONE),
            elements: std::array::from_fn(|_| E2m1::from_low_nibble(rng.random_range(0..16))),
        }
    }
}

/// Binary digits, most significant first.
pub(super) fn bits(value: u128, width: usize) -> String {
    format!("{value:0width$b}")
}

fn block_bits(block: &PackedBlock) -> String {
    format!(
        "{}{}{}",
        u8::from(block.tag),
        bits(block.scale.into(), 8),
        bits(block.payload, 128)
    )
}

/// A line of a hex file from binary digits.
pub(super) fn hex_line(binary: &str) -> String {
    let padded = format!("{}{binary}", "0".repeat((4 - binary.len() % 4) % 4));
    let mut line: String = padded
        .as_bytes()
        .chunks(4)
        .map(|digit| {
            let value = digit
                .iter()
                .fold(0, |value, bit| value * 2 + u32::from(bit - b'0'));
            char::from_digit(value, 16).unwrap_or('0')
        })
        .collect();
    line.push('\n');
    line
}

/// Stimuli and expected results, one line a beat.
#[derive(Default)]
struct Vectors {
    weight: String,
    act: String,
    out: String,
    x: String,
    payload: String,
    scale: String,
    tag: String,
    /// Threshold of the quantizer's vectors.
    threshold: u64,
}

/// Two tiles or more, so that one is computed while another leaves.
fn tiles(config: ArrayConfig) -> usize {
    RESULTS.div_ceil(config.rows * config.cols).max(2)
}

fn vectors(config: ArrayConfig, seed: u64) -> Vectors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut vectors = Vectors::default();
    let output_scale = OutputScale::new(OUTPUT_SCALE).ok();
    let acc_bits = config.acc_bits();
    for _ in 0..tiles(config) {
        let steps = rng.random_range(1..=8.min(config.max_k / BLOCK));
        let mut sums = vec![Accumulator::new(); config.rows * config.cols];
        for step in 0..steps {
            let last = if step + 1 == steps { "1" } else { "0" };
            let weights: Vec<Block> = (0..config.rows).map(|_| random_block(&mut rng)).collect();
            let acts: Vec<Block> = (0..config.cols).map(|_| random_block(&mut rng)).collect();
            // Row 0 stands in the lowest bits.
            let beat = |blocks: &[Block]| {
                blocks.iter().rev().fold(last.to_owned(), |beat, block| {
                    beat + &block_bits(&block.pack())
                })
            };
            vectors.weight += &hex_line(&beat(&weights));
            vectors.act += &hex_line(&beat(&acts));
            for (c, act) in acts.iter().enumerate() {
                for (r, weight) in weights.iter().enumerate() {
                    sums[c * config.rows + r].add(weight, act);
                }
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let y = output_scale.map_or(bf16::NAN, |scale| {
                requantize(sum.value(), sum.is_nan(), scale)
            });
            let last = if i + 1 == sums.len() { "1" } else { "0" };
            let nan = if sum.is_nan() { "1" } else { "0" };
            // The accumulator beside a NaN is not specified; the testbench skips it.
            let acc = if sum.is_nan() {
                0
            } else {
                sum.value() as u128 & (u128::MAX >> (128 - acc_bits))
            };
            vectors.out += &hex_line(&format!(
                "{last}{nan}{}{}",
                bits(acc, acc_bits),
                bits(y.to_bits().into(), 16)
            ));
        }
    }

    let blocks: Vec<([bf16; BLOCK], [Ue4m3; BLOCK])> = (0..QUANTIZER_BLOCKS)
        .map(|_| {
            let spread = rng.random_range(-4.0..8.0_f32).exp2();
            let x = std::array::from_fn(|_| {
                bf16::from_f32(rng.random_range(-1.0..1.0_f32).powi(3) * spread)
            });
            (
                x,
                std::array::from_fn(|_| {
                    Ue4m3::from_bits(rng.random_range(0..=0x7E)).unwrap_or(Ue4m3::ONE)
                }),
            )
        })
        .collect();
    let scale = InputScale::new(INPUT_SCALE).unwrap_or(InputScale::ONE);
    let rescaled: Vec<[bf16; BLOCK]> = blocks
        .iter()
        .map(|(x, _)| x.map(|x| rescale(x, scale)))
        .collect();
    // A score that occurs, so that one block stands exactly on the threshold.
    vectors.threshold = decide(
        &rescaled[QUANTIZER_BLOCKS / 2],
        &blocks[QUANTIZER_BLOCKS / 2].1,
        0,
    )
    .score;
    for (i, ((x, sensitivity), z)) in blocks.iter().zip(&rescaled).enumerate() {
        let last_block = i + 1 == blocks.len();
        for (j, (x, sensitivity)) in x.iter().zip(sensitivity).enumerate() {
            let last = u8::from(last_block && j + 1 == BLOCK);
            vectors.x += &hex_line(&format!(
                "{last}{}{}",
                bits(sensitivity.to_bits().into(), 8),
                bits(x.to_bits().into(), 16)
            ));
        }
        let packed = decide(z, sensitivity, vectors.threshold).block.pack();
        let last = u8::from(last_block);
        vectors.tag += &hex_line(&format!("{last}{}", u8::from(packed.tag)));
        let words: &[u64] = &[packed.payload as u64, (packed.payload >> 64) as u64];
        if packed.tag {
            vectors.payload += &hex_line(&format!("0{}", bits(words[0].into(), 64)));
            vectors.payload += &hex_line(&format!("{last}{}", bits(words[1].into(), 64)));
        } else {
            vectors.payload += &hex_line(&format!("{last}{}", bits(words[0].into(), 64)));
            vectors.scale += &hex_line(&format!("{last}{}", bits(packed.scale.into(), 8)));
        }
    }
    vectors
}

/// The core's inputs beside the streams, in hexadecimal.
fn settings(vectors: &Vectors) -> String {
    format!(
        "{{
  \"output_scale\": \"{:08x}\",
  \"input_scale\": \"{:08x}\",
  \"threshold\": \"{:016x}\"
}}
",
        OUTPUT_SCALE.to_bits(),
        INPUT_SCALE.to_bits(),
        vectors.threshold
    )
}

/// The testbenches and their vectors.
pub fn testbench(config: ArrayConfig, ports: &[Port], seed: u64) -> Vec<(String, Vec<u8>)> {
    let vectors = vectors(config, seed);
    let verilog = verilog(config, ports, &vectors);
    let settings = settings(&vectors);
    let vectors = [
        (format!("{TOP}_tb.v"), verilog),
        ("settings.json".to_owned(), settings),
        ("weight.hex".to_owned(), vectors.weight),
        ("act.hex".to_owned(), vectors.act),
        ("out.hex".to_owned(), vectors.out),
        ("x.hex".to_owned(), vectors.x),
        ("payload.hex".to_owned(), vectors.payload),
        ("scale.hex".to_owned(), vectors.scale),
        ("tag.hex".to_owned(), vectors.tag),
    ]
    .map(|(name, text)| (format!("tb/{name}"), text.into_bytes()));
    let cocotb = [
        ("Makefile", include_str!("cocotb.mk")),
        ("test_fgmp_core.py", include_str!("test_fgmp_core.py")),
    ]
    .map(|(name, text)| (format!("cocotb/{name}"), text.as_bytes().to_vec()));
    vectors.into_iter().chain(cocotb).collect()
}

fn verilog(config: ArrayConfig, ports: &[Port], vectors: &Vectors) -> String {
    let lines = |text: &str| text.lines().count();
    let (rows, cols, acc) = (config.rows, config.cols, config.acc_bits());
    let mut text = format!(
        "// Self-checking testbench of {TOP}: reads tb/*.hex, prints PASS, or FAIL and stops ($stop, exit status 1 of vvp -N).
// Results are taken with pauses that an LFSR chooses; inputs are offered at full rate.
`timescale 1ns / 1ps

module {TOP}_tb;
  reg clock = 1'b0;
  reg reset = 1'b1;
  always #5 clock = ~clock;

  integer errors = 0;
  integer cycles = 0;
  reg [15:0] lfsr = 16'hACE1;
  always @(posedge clock) lfsr <= {{lfsr[14:0], lfsr[15] ^ lfsr[13] ^ lfsr[12] ^ lfsr[10]}};

"
    );
    for (name, width, count) in [
        ("weight", rows * BLOCK_BITS + 1, lines(&vectors.weight)),
        ("act", cols * BLOCK_BITS + 1, lines(&vectors.act)),
        ("x", 25, lines(&vectors.x)),
    ] {
        let top = width - 1;
        let _ = write!(
            text,
            "  reg [{top}:0] {name}_beats [0:{last_index}];
  integer {name}_index = 0;
  wire {name}_ready;
  wire {name}_valid = !reset && {name}_index < {count};
  wire [{top}:0] {name}_beat = {name}_beats[{name}_index < {count} ? {name}_index : 0];
  always @(posedge clock) if ({name}_valid && {name}_ready) {name}_index <= {name}_index + 1;
  initial $readmemh(\"tb/{name}.hex\", {name}_beats);

",
            last_index = count - 1,
        );
    }
    let checks = [
        (
            "out",
            acc + 18,
            lines(&vectors.out),
            "{out_last, out_nan, out_nan ? EXPECTED_ACC : out_acc, out_data}",
        ),
        (
            "payload",
            65,
            lines(&vectors.payload),
            "{payload_last, payload_data}",
        ),
        (
            "scale",
            9,
            lines(&vectors.scale),
            "{scale_last, scale_data}",
        ),
        ("tag", 2, lines(&vectors.tag), "{tag_last, tag_data}"),
    ];
    for port in ports
        .iter()
        .filter(|port| port.direction == crate::emit::Direction::Output)
    {
        if ["weight_ready", "act_ready", "x_ready"].contains(&port.name.as_str()) {
            continue;
        }
        let range = if port.width == 1 {
            String::new()
        } else {
            format!("[{}:0] ", port.width - 1)
        };
        let _ = writeln!(text, "  wire {range}{};", port.name);
    }
    text.push('\n');
    for (i, (name, width, count, found)) in checks.into_iter().enumerate() {
        let top = width - 1;
        let found = found.replace("EXPECTED_ACC", &format!("out_expected[{}:16]", acc + 15));
        let _ = write!(
            text,
            "  reg [{top}:0] {name}_beats [0:{last_index}];
  integer {name}_index = 0;
  wire {name}_ready = lfsr[{bit}] || lfsr[{other}];
  wire [{top}:0] {name}_expected = {name}_beats[{name}_index < {count} ? {name}_index : 0];
  wire [{top}:0] {name}_found = {found};
  initial $readmemh(\"tb/{name}.hex\", {name}_beats);
  always @(posedge clock)
    if (!reset && {name}_valid && {name}_ready) begin
      if ({name}_index >= {count} || {name}_found !== {name}_expected) begin
        $display(\"{name} %0d: found %h, expected %h\", {name}_index, {name}_found, {name}_expected);
        errors = errors + 1;
      end
      {name}_index <= {name}_index + 1;
    end

",
            last_index = count.max(1) - 1,
            bit = i,
            other = i + 5,
        );
    }
    let _ = writeln!(text, "  {TOP} core (");
    let connections: Vec<String> = ports
        .iter()
        .map(|port| {
            let name = port.name.as_str();
            let block = |stream: &str| {
                let index: usize = name
                    .rsplit('_')
                    .next()
                    .and_then(|digits| digits.parse().ok())
                    .unwrap_or(0);
                format!(
                    "{stream}_beat[{}:{}]",
                    (index + 1) * BLOCK_BITS - 1,
                    index * BLOCK_BITS
                )
            };
            let signal = match name {
                "output_scale" => format!("32'h{:08x}", OUTPUT_SCALE.to_bits()),
                "input_scale" => format!("32'h{:08x}", INPUT_SCALE.to_bits()),
                "threshold" => format!("64'h{:016x}", vectors.threshold),
                "weight_last" => format!("weight_beat[{}]", rows * BLOCK_BITS),
                "act_last" => format!("act_beat[{}]", cols * BLOCK_BITS),
                "x_last" => "x_beat[24]".to_owned(),
                "x_sensitivity" => "x_beat[23:16]".to_owned(),
                "x_data" => "x_beat[15:0]".to_owned(),
                _ if name.starts_with("weight_data") => block("weight"),
                _ if name.starts_with("act_data") => block("act"),
                _ => name.to_owned(),
            };
            format!("    .{name}({signal})")
        })
        .collect();
    let done: Vec<String> = checks
        .iter()
        .map(|(name, _, count, _)| format!("{name}_index == {count}"))
        .collect();
    let results = lines(&vectors.out);
    let _ = write!(
        text,
        "{}
  );

  always @(posedge clock) begin
    cycles <= cycles + 1;
    if (cycles == 4) reset <= 1'b0;
    if ({}) begin
      if (last_mismatch !== 1'b0) errors = errors + 1;
      if (errors == 0) $display(\"PASS {TOP}: {results} results and {QUANTIZER_BLOCKS} quantized blocks agree\");
      else begin
        $display(\"FAIL {TOP}: %0d errors\", errors);
        $stop;
      end
      $finish;
    end
    if (cycles == 200000) begin
      $display(\"FAIL {TOP}: hangs after %0d results\", out_index);
      $stop;
      $finish;
    end
  end
endmodule
",
        connections.join(",\n"),
        done.join(" && "),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_lines_are_padded_at_the_top() {
        assert_eq!(hex_line("1"), "1\n");
        assert_eq!(hex_line("10000"), "10\n");
        assert_eq!(hex_line(&bits(0xABC, 12)), "abc\n");
    }

    #[test]
    fn vectors_are_the_same_for_the_same_seed_and_have_both_kinds_of_block() {
        let config = ArrayConfig {
            rows: 2,
            cols: 3,
            ..ArrayConfig::default()
        };
        let (a, b) = (vectors(config, 1), vectors(config, 1));
        assert_eq!(a.weight, b.weight);
        assert_eq!(a.out.lines().count(), 34 * 6);
        let fp8 = a.payload.lines().count() - QUANTIZER_BLOCKS;
        assert!(fp8 > 0 && fp8 < QUANTIZER_BLOCKS);
        assert_eq!(a.scale.lines().count(), QUANTIZER_BLOCKS - fp8);
        assert_ne!(a.weight, vectors(config, 2).weight);
    }
}
