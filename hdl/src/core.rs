//! The generated top: the array and the activation quantization unit side by side.

use crate::array::PeArray;
use crate::config::Multiplier;
use crate::decoder::BLOCK_BITS;
use crate::prelude::*;
use crate::quantizer::ActQuantizer;

/// Core: block streams to the array, BF16 results out of it; BF16 activations to the quantizer,
/// the three dense streams of a packed tensor out of it.
#[derive(LogicBlock, PortAccess)]
pub struct Core<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Array: FP32 bits of the output scale M (numerics §5).
    pub output_scale: Signal<In, Bits<32>>,
    /// Weight blocks are valid.
    pub weight_valid: Signal<In, Bit>,
    /// Weight blocks are taken.
    pub weight_ready: Signal<Out, Bit>,
    /// Last blocks of the reduction dimension.
    pub weight_last: Signal<In, Bit>,
    /// One packed weight block a row.
    pub weight_data: Vec<Signal<In, Bits<BLOCK_BITS>>>,
    /// Activation blocks are valid.
    pub act_valid: Signal<In, Bit>,
    /// Activation blocks are taken.
    pub act_ready: Signal<Out, Bit>,
    /// Last blocks of the reduction dimension.
    pub act_last: Signal<In, Bit>,
    /// One packed activation block a column.
    pub act_data: Vec<Signal<In, Bits<BLOCK_BITS>>>,
    /// Result is valid.
    pub out_valid: Signal<Out, Bit>,
    /// Result is taken.
    pub out_ready: Signal<In, Bit>,
    /// Last result of the tile.
    pub out_last: Signal<Out, Bit>,
    /// The result, BF16.
    pub out_data: Signal<Out, Bits<16>>,
    /// Its accumulator, two's complement in units of 2^-20.
    pub out_acc: Signal<Out, Bits<ACC>>,
    /// The result is NaN.
    pub out_nan: Signal<Out, Bit>,
    /// Sticky: the two input streams disagreed on `last`.
    pub last_mismatch: Signal<Out, Bit>,
    /// Quantizer: FP32 bits of the input scale M (numerics §3).
    pub input_scale: Signal<In, Bits<32>>,
    /// Quantizer: a block becomes FP8 when its score is above this.
    pub threshold: Signal<In, Bits<64>>,
    /// Element is valid.
    pub x_valid: Signal<In, Bit>,
    /// Element is taken.
    pub x_ready: Signal<Out, Bit>,
    /// Last element of the row; the rest of its block counts as zero.
    pub x_last: Signal<In, Bit>,
    /// BF16 element.
    pub x_data: Signal<In, Bits<16>>,
    /// UE4M3 sensitivity of the element's channel.
    pub x_sensitivity: Signal<In, Bits<8>>,
    /// Payload word is valid.
    pub payload_valid: Signal<Out, Bit>,
    /// Payload word is taken.
    pub payload_ready: Signal<In, Bit>,
    /// Last word of the row.
    pub payload_last: Signal<Out, Bit>,
    /// Payload word: one for an FP4 block, two for an FP8 block.
    pub payload_data: Signal<Out, Bits<64>>,
    /// Scale byte is valid.
    pub scale_valid: Signal<Out, Bit>,
    /// Scale byte is taken.
    pub scale_ready: Signal<In, Bit>,
    /// Last block of the row, when it is an FP4 block.
    pub scale_last: Signal<Out, Bit>,
    /// Scale byte; FP4 blocks only.
    pub scale_data: Signal<Out, Bits<8>>,
    /// Tag bit is valid.
    pub tag_valid: Signal<Out, Bit>,
    /// Tag bit is taken.
    pub tag_ready: Signal<In, Bit>,
    /// Last block of the row.
    pub tag_last: Signal<Out, Bit>,
    /// Tag bit: 1 is FP8.
    pub tag_data: Signal<Out, Bits<1>>,

    array: PeArray<ACC>,
    quantizer: ActQuantizer,
    _rows: usize,
    _cols: usize,
}

impl<const ACC: usize> Core<ACC> {
    /// A core with an array of `rows` x `cols` PEs of so many `stages`; see [`PeArray::new`].
    #[must_use]
    pub fn new(rows: usize, cols: usize, stages: usize, multiplier: Multiplier) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            output_scale: Default::default(),
            weight_valid: Default::default(),
            weight_ready: Default::default(),
            weight_last: Default::default(),
            weight_data: (0..rows).map(|_| Default::default()).collect(),
            act_valid: Default::default(),
            act_ready: Default::default(),
            act_last: Default::default(),
            act_data: (0..cols).map(|_| Default::default()).collect(),
            out_valid: Default::default(),
            out_ready: Default::default(),
            out_last: Default::default(),
            out_data: Default::default(),
            out_acc: Default::default(),
            out_nan: Default::default(),
            last_mismatch: Default::default(),
            input_scale: Default::default(),
            threshold: Default::default(),
            x_valid: Default::default(),
            x_ready: Default::default(),
            x_last: Default::default(),
            x_data: Default::default(),
            x_sensitivity: Default::default(),
            payload_valid: Default::default(),
            payload_ready: Default::default(),
            payload_last: Default::default(),
            payload_data: Default::default(),
            scale_valid: Default::default(),
            scale_ready: Default::default(),
            scale_last: Default::default(),
            scale_data: Default::default(),
            tag_valid: Default::default(),
            tag_ready: Default::default(),
            tag_last: Default::default(),
            tag_data: Default::default(),
            array: PeArray::new(rows, cols, stages, multiplier),
            quantizer: Default::default(),
            _rows: rows,
            _cols: cols,
        }
    }
}

/// A rows x cols array of mixed FP4/FP8 processing elements and the unit that quantizes
/// activations for it. Both run on their own; every stream has valid, ready and last.
#[kernel(name = "fgmp_core")]
impl<const ACC: usize> Logic for Core<ACC> {
    fn update(&mut self) {
        self.array.clock.next = self.clock.val();
        self.array.reset.next = self.reset.val();
        self.array.output_scale.next = self.output_scale.val();
        self.array.tile.next = 0.into();
        self.array.weight_valid.next = self.weight_valid.val();
        self.array.weight_last.next = self.weight_last.val();
        self.weight_ready.next = self.array.weight_ready.val();
        for r in 0..self._rows {
            self.array.weight_data[r].next = self.weight_data[r].val();
        }
        self.array.act_valid.next = self.act_valid.val();
        self.array.act_last.next = self.act_last.val();
        self.act_ready.next = self.array.act_ready.val();
        for c in 0..self._cols {
            self.array.act_data[c].next = self.act_data[c].val();
        }
        self.array.out_ready.next = self.out_ready.val();
        self.out_valid.next = self.array.out_valid.val();
        self.out_last.next = self.array.out_last.val();
        self.out_data.next = self.array.out_data.val();
        self.out_acc.next = self.array.out_acc.val();
        self.out_nan.next = self.array.out_nan.val();
        self.last_mismatch.next = self.array.last_mismatch.val();

        self.quantizer.clock.next = self.clock.val();
        self.quantizer.reset.next = self.reset.val();
        self.quantizer.input_scale.next = self.input_scale.val();
        self.quantizer.threshold.next = self.threshold.val();
        self.quantizer.x_valid.next = self.x_valid.val();
        self.quantizer.x_last.next = self.x_last.val();
        self.quantizer.x_data.next = self.x_data.val();
        self.quantizer.x_sensitivity.next = self.x_sensitivity.val();
        self.x_ready.next = self.quantizer.x_ready.val();
        self.quantizer.payload_ready.next = self.payload_ready.val();
        self.payload_valid.next = self.quantizer.payload_valid.val();
        self.payload_last.next = self.quantizer.payload_last.val();
        self.payload_data.next = self.quantizer.payload_data.val();
        self.quantizer.scale_ready.next = self.scale_ready.val();
        self.scale_valid.next = self.quantizer.scale_valid.val();
        self.scale_last.next = self.quantizer.scale_last.val();
        self.scale_data.next = self.quantizer.scale_data.val();
        self.quantizer.tag_ready.next = self.tag_ready.val();
        self.tag_valid.next = self.quantizer.tag_valid.val();
        self.tag_last.next = self.quantizer.tag_last.val();
        self.tag_data.next = self.quantizer.tag_data.val();
    }
}
