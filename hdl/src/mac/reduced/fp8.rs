//! The FP8 dot product alone.

use super::super::{AlignedProduct, AlignedSum, Lane, WIDE_PRODUCT, WIDE_SUM};
use crate::decoder::MagnitudeDecoder;
use crate::prelude::*;
use golden::format::BLOCK;
use std::array::from_fn;

/// Exact dot product of 16 pairs of E4M3 elements, none of them NaN.
///
/// Pipelined, the sum belongs to the blocks of three loads of `enable` before.
#[derive(LogicBlock, PortAccess)]
pub struct Fp8Sum {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// All registers load.
    pub enable: Signal<In, Bit>,
    /// E4M3 codes of the weight block.
    pub weight: [Signal<In, Bits<8>>; BLOCK],
    /// E4M3 codes of the activation block.
    pub act: [Signal<In, Bits<8>>; BLOCK],
    /// Their dot product in units of 2^-18, two's complement.
    pub sum: Signal<Out, Bits<WIDE_SUM>>,
    weight_decoder: [MagnitudeDecoder; BLOCK],
    act_decoder: [MagnitudeDecoder; BLOCK],
    weight_lane: [Signal<Local, Bits<9>>; BLOCK],
    act_lane: [Signal<Local, Bits<9>>; BLOCK],
    lane: [Lane; BLOCK],
    product: [PipelineRegister<Bits<8>>; BLOCK],
    product_negative: [PipelineRegister<Bit>; BLOCK],
    product_shift: [PipelineRegister<Bits<5>>; BLOCK],
    align: [AlignedProduct; BLOCK],
    aligned: [PipelineRegister<Bits<WIDE_PRODUCT>>; BLOCK],
    aligned_negative: [PipelineRegister<Bit>; BLOCK],
    tree: AlignedSum,
}

impl Fp8Sum {
    /// With registers behind products, shifters and in the middle of the adders, or without any.
    #[must_use]
    pub fn new(pipelined: bool) -> Self {
        fn lanes<T: Word>(pipelined: bool) -> [PipelineRegister<T>; BLOCK] {
            from_fn(|_| PipelineRegister::new(pipelined))
        }
        Self {
            clock: Default::default(),
            enable: Default::default(),
            weight: Default::default(),
            act: Default::default(),
            sum: Default::default(),
            weight_decoder: Default::default(),
            act_decoder: Default::default(),
            weight_lane: Default::default(),
            act_lane: Default::default(),
            lane: Default::default(),
            product: lanes(pipelined),
            product_negative: lanes(pipelined),
            product_shift: lanes(pipelined),
            align: Default::default(),
            aligned: lanes(pipelined),
            aligned_negative: lanes(pipelined),
            tree: AlignedSum::new(pipelined),
        }
    }

    /// Loads of `enable` from the blocks to their sum.
    #[must_use]
    pub const fn latency(pipelined: bool) -> usize {
        if pipelined { 3 } else { 0 }
    }
}

impl Default for Fp8Sum {
    fn default() -> Self {
        Self::new(true)
    }
}

/// Dot product of 16 pairs of E4M3 elements, exact in units of 2^-18: decoders, products of the significands, shifters, adders.
#[kernel]
impl Logic for Fp8Sum {
    fn update(&mut self) {
        self.tree.clock.next = self.clock.val();
        self.tree.enable.next = self.enable.val();
        for i in 0..BLOCK {
            pipeline_registers!(
                self,
                clock,
                enable,
                product[i],
                product_negative[i],
                product_shift[i],
                aligned[i],
                aligned_negative[i]
            );
            self.weight_decoder[i].code.next = self.weight[i].val().get_bits::<7>(0);
            self.act_decoder[i].code.next = self.act[i].val().get_bits::<7>(0);
            self.weight_lane[i].next = (bit_cast::<9, 1>(self.weight[i].val().get_bits::<1>(7))
                << 8)
                | (bit_cast::<9, 4>(self.weight_decoder[i].significand.val()) << 4)
                | bit_cast::<9, 4>(self.weight_decoder[i].shift.val());
            self.act_lane[i].next = (bit_cast::<9, 1>(self.act[i].val().get_bits::<1>(7)) << 8)
                | (bit_cast::<9, 4>(self.act_decoder[i].significand.val()) << 4)
                | bit_cast::<9, 4>(self.act_decoder[i].shift.val());
            self.lane[i].weight.next = self.weight_lane[i].val();
            self.lane[i].act.next = self.act_lane[i].val();
            self.product[i].d.next = self.lane[i].product.val();
            self.product_negative[i].d.next = self.lane[i].negative.val();
            self.product_shift[i].d.next = self.lane[i].shift.val();
            self.align[i].product.next = self.product[i].q.val();
            self.align[i].negative.next = self.product_negative[i].q.val();
            self.align[i].shift.next = self.product_shift[i].q.val();
            self.aligned[i].d.next = self.align[i].aligned.val();
            self.aligned_negative[i].d.next = self.product_negative[i].q.val();
            self.tree.product[i].next = self.aligned[i].q.val();
            self.tree.negative[i].next = self.aligned_negative[i].q.val();
        }
        self.sum.next = self.tree.sum.val();
    }
}
