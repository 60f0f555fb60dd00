//! Memories.

use crate::kernel::{Description, custom};
use crate::prelude::*;

/// Memory of 2^`A` words of `W` bits with one write and one read port.
///
/// Reading takes a clock edge; the output holds while `read` is low. A word is never read in the cycle that
/// writes it, so read-first and write-first block RAM serve alike.
#[derive(LogicBlock, PortAccess)]
pub struct BlockBuffer<const W: usize, const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Write this cycle.
    pub write: Signal<In, Bit>,
    /// Word to write.
    pub write_address: Signal<In, Bits<A>>,
    /// Its new content.
    pub write_data: Signal<In, Bits<W>>,
    /// Read this cycle.
    pub read: Signal<In, Bit>,
    /// Word to read.
    pub read_address: Signal<In, Bits<A>>,
    /// What was read at the last clock edge with `read` high.
    pub read_data: Signal<Out, Bits<W>>,
    _words: Vec<Bits<W>>,
}

impl<const W: usize, const A: usize> Default for BlockBuffer<W, A> {
    fn default() -> Self {
        Self {
            clock: Signal::default(),
            write: Signal::default(),
            write_address: Signal::default(),
            write_data: Signal::default(),
            read: Signal::default(),
            read_address: Signal::default(),
            read_data: Signal::default(),
            _words: vec![Bits::default(); 1 << A],
        }
    }
}

impl<const W: usize, const A: usize> Logic for BlockBuffer<W, A> {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            if self.read.val() {
                self.read_data.next = self._words[self.read_address.val().index()];
            }
            if self.write.val() {
                self._words[self.write_address.val().index()] = self.write_data.val();
            }
        }
    }

    fn connect(&mut self) {
        self.read_data.connect();
    }

    fn hdl(&self) -> Verilog {
        let description = Description {
            name: "block_buffer".to_owned(),
            parameters: vec![("W".to_owned(), W.to_string()), ("A".to_owned(), A.to_string())],
            doc: "Memory with one write and one synchronous read port.\nA word is never read in the cycle that writes it."
                .to_owned(),
            ..Description::default()
        };
        let (word, words) = (W - 1, (1_usize << A) - 1);
        custom(
            &description,
            &format!(
                "  (* no_rw_check *)\n  reg [{word}:0] words [0:{words}];\n\n  always @(posedge clock) begin\n    if (write) words[write_address] <= write_data;\n    if (read) read_data <= words[read_address];\n  end\n"
            ),
        )
    }
}

/// Memory of 2^`A` words of `W` bits with one write and one read port, whose reading takes no clock edge.
///
/// Reading the word that is being written gives the old one. A device with small memories in its logic cells (ECP5, Xilinx) puts it there; elsewhere
/// it becomes registers, so it should be small.
#[derive(LogicBlock, PortAccess)]
pub struct LutRam<const W: usize, const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Write this cycle.
    pub write: Signal<In, Bit>,
    /// Word to write.
    pub write_address: Signal<In, Bits<A>>,
    /// Its new content.
    pub write_data: Signal<In, Bits<W>>,
    /// Word to read.
    pub read_address: Signal<In, Bits<A>>,
    /// It.
    pub read_data: Signal<Out, Bits<W>>,
    _words: Vec<Bits<W>>,
}

impl<const W: usize, const A: usize> Default for LutRam<W, A> {
    fn default() -> Self {
        Self {
            clock: Signal::default(),
            write: Signal::default(),
            write_address: Signal::default(),
            write_data: Signal::default(),
            read_address: Signal::default(),
            read_data: Signal::default(),
            _words: vec![Bits::default(); 1 << A],
        }
    }
}

impl<const W: usize, const A: usize> Logic for LutRam<W, A> {
    fn update(&mut self) {
        if self.clock.pos_edge() && self.write.val() {
            self._words[self.write_address.val().index()] = self.write_data.val();
        }
        self.read_data.next = self._words[self.read_address.val().index()];
    }

    fn connect(&mut self) {
        self.read_data.connect();
    }

    fn hdl(&self) -> Verilog {
        let description = Description {
            name: "lut_ram".to_owned(),
            parameters: vec![
                ("W".to_owned(), W.to_string()),
                ("A".to_owned(), A.to_string()),
            ],
            doc: "Small memory with one write port and one read port without a clock.".to_owned(),
            ..Description::default()
        };
        let (word, words) = (W - 1, (1_usize << A) - 1);
        custom(
            &description,
            &format!(
                "  reg [{word}:0] words [0:{words}];\n  wire [{word}:0] word = words[read_address];\n\n  always @(posedge clock) begin\n    if (write) words[write_address] <= write_data;\n  end\n\n  always @* read_data = word;\n"
            ),
        )
    }
}

/// Address width of a [`Ram`], whatever its depth.
pub const ADDRESS: usize = 16;

/// Memory of `W`-bit words, as many as a configuration wants, with one write and one read port.
///
/// As [`BlockBuffer`], but the depth, a power of two from 2 to 2^16, is chosen when the design is built. Address bits beyond it are ignored.
/// Reading the word that is being written gives the old one here and may give anything in hardware; no unit uses it. (Yosys would otherwise add
/// registers and multiplexers that give the old one.)
#[derive(LogicBlock, PortAccess)]
pub struct Ram<const W: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Write this cycle.
    pub write: Signal<In, Bit>,
    /// Word to write.
    pub write_address: Signal<In, Bits<ADDRESS>>,
    /// Its new content.
    pub write_data: Signal<In, Bits<W>>,
    /// Read this cycle.
    pub read: Signal<In, Bit>,
    /// Word to read.
    pub read_address: Signal<In, Bits<ADDRESS>>,
    /// What was read at the last clock edge with `read` high.
    pub read_data: Signal<Out, Bits<W>>,
    _words: Vec<Bits<W>>,
}

impl<const W: usize> Ram<W> {
    /// A memory of at least `depth` words: the next power of two, at least 2 and at most 2^16.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        Self {
            clock: Signal::default(),
            write: Signal::default(),
            write_address: Signal::default(),
            write_data: Signal::default(),
            read: Signal::default(),
            read_address: Signal::default(),
            read_data: Signal::default(),
            _words: vec![Bits::default(); depth.clamp(2, 1 << ADDRESS).next_power_of_two()],
        }
    }
}

impl<const W: usize> Logic for Ram<W> {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            let depth = self._words.len();
            if self.read.val() {
                self.read_data.next = self._words[self.read_address.val().index() % depth];
            }
            if self.write.val() {
                self._words[self.write_address.val().index() % depth] = self.write_data.val();
            }
        }
    }

    fn connect(&mut self) {
        self.read_data.connect();
    }

    fn hdl(&self) -> Verilog {
        let depth = self._words.len();
        let bits = depth.ilog2() as usize;
        let description = Description {
            name: "ram".to_owned(),
            parameters: vec![("W".to_owned(), W.to_string()), ("D".to_owned(), depth.to_string())],
            doc: "Memory of D words with one write and one synchronous read port. What is read of a word while it is written is not used.\nAddress bits beyond its depth are ignored."
                .to_owned(),
            ..Description::default()
        };
        let (word, last, top) = (W - 1, depth - 1, bits - 1);
        let unused = if bits < ADDRESS {
            format!(
                "  // Bits that nothing reads.\n  wire unused = &{{1'b0, write_address[{high}:{bits}], read_address[{high}:{bits}]}};\n",
                high = ADDRESS - 1
            )
        } else {
            String::new()
        };
        custom(
            &description,
            &format!(
                "{unused}  (* no_rw_check *)\n  reg [{word}:0] words [0:{last}];\n\n  always @(posedge clock) begin\n    if (write) words[write_address[{top}:0]] <= write_data;\n    if (read) read_data <= words[read_address[{top}:0]];\n  end\n"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_back_one_edge_later_and_held() {
        let mut buffer = BlockBuffer::<23, 5>::default();
        let edge = |buffer: &mut BlockBuffer<23, 5>| {
            for clk in [false, true] {
                buffer.clock.next = Clock { clk };
                assert!(simulate(buffer, 10));
            }
        };
        buffer.write.next = true;
        buffer.write_address.next = 17.into();
        buffer.write_data.next = 0x12345.into();
        edge(&mut buffer);
        buffer.write.next = false;
        buffer.read.next = true;
        buffer.read_address.next = 17.into();
        edge(&mut buffer);
        assert_eq!(buffer.read_data.val(), 0x12345);
        buffer.read.next = false;
        buffer.read_address.next = 0.into();
        edge(&mut buffer);
        assert_eq!(buffer.read_data.val(), 0x12345);
    }

    #[test]
    fn a_small_memory_is_read_without_a_clock() {
        let mut memory = LutRam::<73, 3>::default();
        memory.write.next = true;
        for word in 0..8_u64 {
            memory.write_address.next = word.into();
            memory.write_data.next = (0x100 + word).into();
            for clk in [false, true] {
                memory.clock.next = Clock { clk };
                assert!(simulate(&mut memory, 10));
            }
        }
        memory.write.next = false;
        for word in [3_u64, 7, 0, 5] {
            memory.read_address.next = word.into();
            assert!(simulate(&mut memory, 10));
            assert_eq!(memory.read_data.val(), 0x100 + word);
        }
    }
}
