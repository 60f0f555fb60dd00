//! The emitted text of small modules, and its agreement with rust-hdl's simulation cycle by cycle.
#![allow(clippy::panic, reason = "a helper fails the test that calls it")]

mod support;

use hdl::emit::{Bundle, EmitOptions, emit};
use hdl::prelude::*;
use std::array::from_fn;
use support::{Random, assert_icarus_agrees, assert_lint_clean, simulate_case};

/// Accumulates under an enable.
#[derive(LogicBlock, PortAccess, Default)]
struct Accumulator<const W: usize> {
    clock: Signal<In, Clock>,
    reset: Signal<In, Bit>,
    enable: Signal<In, Bit>,
    data: Signal<In, Bits<8>>,
    total: Signal<Out, Bits<W>>,
    sum: Register<Bits<W>>,
}

/// Running sum of `data` over the cycles with `enable`.
///
/// Wraps at 2^W.
#[kernel]
impl<const W: usize> Logic for Accumulator<W> {
    fn update(&mut self) {
        registers!(self, clock, reset, sum);
        if self.enable.val() {
            self.sum.d.next = self.sum.q.val() + bit_cast::<W, 8>(self.data.val());
        }
        self.total.next = self.sum.q.val();
    }
}

/// States of [`Handshake`].
#[derive(LogicState, Clone, Copy, Debug, PartialEq)]
enum State {
    Idle,
    Busy,
    Done,
}

impl Word for State {
    fn from_words(words: &[u64]) -> Self {
        match words.first() {
            Some(1) => Self::Busy,
            Some(2) => Self::Done,
            _ => Self::Idle,
        }
    }

    fn to_words(&self, words: &mut [u64]) {
        words[0] = *self as u64;
    }
}

/// A small state machine.
#[derive(LogicBlock, PortAccess)]
struct Handshake {
    clock: Signal<In, Clock>,
    reset: Signal<In, Bit>,
    start: Signal<In, Bit>,
    busy: Signal<Out, Bit>,
    done: Signal<Out, Bit>,
    state: Register<State>,
    count: DataRegister<Bits<3>>,
    last: Constant<Bits<3>>,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            busy: Default::default(),
            done: Default::default(),
            state: Register::new(State::Idle),
            count: Default::default(),
            last: Constant::new(5.into()),
        }
    }
}

/// Waits for `start`, is busy for six cycles, and says `done` for one.
#[kernel]
impl Logic for Handshake {
    fn update(&mut self) {
        registers!(self, clock, reset, state);
        data_registers!(self, clock, count);
        match self.state.q.val() {
            State::Idle => {
                self.count.d.next = 0.into();
                if self.start.val() {
                    self.state.d.next = State::Busy;
                }
            }
            State::Busy => {
                self.count.d.next = self.count.q.val() + 1;
                if self.count.q.val() == self.last.val() {
                    self.state.d.next = State::Done;
                }
            }
            State::Done => self.state.d.next = State::Idle,
        }
        self.busy.next = self.state.q.val() != State::Idle;
        self.done.next = self.state.q.val() == State::Done;
    }
}

/// One of several equal lanes.
#[derive(LogicBlock, PortAccess, Default)]
struct Lane<const W: usize> {
    clock: Signal<In, Clock>,
    a: Signal<In, Bits<W>>,
    b: Signal<In, Bits<W>>,
    product: Signal<Out, Bits<16>>,
    multiplier: MulS<8, 8, 16>,
    wide_a: SignExtend<W, 8>,
    wide_b: SignExtend<W, 8>,
    pipe: [DataRegister<Bits<16>>; 2],
}

/// Product of two two's complement numbers, two cycles later.
#[kernel(name = "signed_lane")]
impl<const W: usize> Logic for Lane<W> {
    fn update(&mut self) {
        for i in 0..2 {
            data_registers!(self, clock, pipe[i]);
        }
        self.wide_a.a.next = self.a.val();
        self.wide_b.a.next = self.b.val();
        self.multiplier.a.next = self.wide_a.y.val();
        self.multiplier.b.next = self.wide_b.y.val();
        self.pipe[0].d.next = self.multiplier.p.val();
        self.pipe[1].d.next = self.pipe[0].q.val();
        self.product.next = self.pipe[1].q.val();
    }
}

/// Sixteen lanes of one width, one of another, an adder tree, and what selects among them.
#[derive(LogicBlock, PortAccess)]
struct Dot<const LANES: usize> {
    clock: Signal<In, Clock>,
    a: [Signal<In, Bits<6>>; LANES],
    b: Signal<In, Bits<6>>,
    select: Signal<In, Bits<5>>,
    amount: Signal<In, Bits<6>>,
    sum: Signal<Out, Bits<20>>,
    one: Signal<Out, Bits<16>>,
    odd: Signal<Out, Bits<16>>,
    scaled: Signal<Out, Bits<20>>,
    carried: Signal<Out, Bits<17>>,
    lane: [Lane<6>; LANES],
    narrow: Lane<4>,
    tree: AddTree<16, 16, 20>,
    mux: MuxN<Bits<16>, 5>,
    negate: Negate<16>,
    shift: ShiftLeft<20, 6>,
    adder: AddCarry<16, 17>,
}

impl<const LANES: usize> Default for Dot<LANES> {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            a: from_fn(|_| Default::default()),
            b: Default::default(),
            select: Default::default(),
            amount: Default::default(),
            sum: Default::default(),
            one: Default::default(),
            odd: Default::default(),
            scaled: Default::default(),
            carried: Default::default(),
            lane: from_fn(|_| Default::default()),
            narrow: Default::default(),
            tree: Default::default(),
            mux: MuxN::new(LANES),
            negate: Default::default(),
            shift: Default::default(),
            adder: Default::default(),
        }
    }
}

/// Dot product of a vector with a repeated scalar.
#[kernel]
impl<const LANES: usize> Logic for Dot<LANES> {
    fn update(&mut self) {
        for i in 0..LANES {
            self.lane[i].clock.next = self.clock.val();
            self.lane[i].a.next = self.a[i].val();
            self.lane[i].b.next = self.b.val();
            self.tree.a[i].next = self.lane[i].product.val();
            self.mux.a[LANES - 1 - i].next = self.lane[i].product.val();
        }
        self.narrow.clock.next = self.clock.val();
        self.narrow.a.next = self.a[LANES - 1].val().get_bits::<4>(1);
        self.narrow.b.next = bit_cast::<4, 6>(self.b.val());
        self.mux.select.next = self.select.val();
        self.negate.a.next = self.narrow.product.val();
        self.shift.a.next = self.tree.sum.val();
        self.shift.amount.next = self.amount.val();
        self.sum.next = self.tree.sum.val();
        self.one.next = self.mux.y.val();
        self.odd.next = self.negate.y.val();
        self.scaled.next = self.shift.y.val();
        self.adder.a.next = self.lane[0].product.val();
        self.adder.b.next = self.lane[LANES - 1].product.val();
        self.adder.carry.next = self.select.val().get_bit(0);
        self.carried.next = self.adder.sum.val();
    }
}

/// A pair of fields in one signal.
#[derive(LogicStruct, Clone, Copy, Debug, PartialEq, Default)]
struct Pair {
    low: Bits<3>,
    high: Bits<5>,
}

#[derive(LogicInterface, Clone, Debug, Default, PortAccess)]
#[join = "Sink"]
struct Source {
    data: Signal<Out, Bits<8>>,
    valid: Signal<Out, Bit>,
    ready: Signal<In, Bit>,
}

#[derive(LogicInterface, Clone, Debug, Default, PortAccess)]
#[join = "Source"]
struct Sink {
    data: Signal<In, Bits<8>>,
    valid: Signal<In, Bit>,
    ready: Signal<Out, Bit>,
}

/// Swaps the fields of what passes.
#[derive(LogicBlock, PortAccess, Default)]
struct Swap {
    #[interface]
    sink: Sink,
    #[interface]
    source: Source,
    pair: Signal<Local, Pair>,
}

/// Passes the fields on, `low` inverted.
#[kernel]
impl Logic for Swap {
    fn update(&mut self) {
        self.pair.next.low = !self.sink.data.val().get_bits::<3>(0);
        self.pair.next.high = self.sink.data.val().get_bits::<5>(3);
        self.source.data.next = bit_cast::<8, 3>(self.pair.val().low) << 5;
        self.source.data.next = self.source.data.val() | bit_cast::<8, 5>(self.pair.val().high);
        self.source.valid.next = self.sink.valid.val();
        self.sink.ready.next = self.source.ready.val();
    }
}

/// Two swaps in a row.
#[derive(LogicBlock, PortAccess, Default)]
struct Chain {
    #[interface]
    sink: Sink,
    #[interface]
    source: Source,
    swap: [Swap; 2],
}

/// Joins two swaps.
#[kernel]
impl Logic for Chain {
    fn update(&mut self) {
        Sink::link(&mut self.sink, &mut self.swap[0].sink);
        for i in 0..1 {
            self.swap[1].sink.data.next = self.swap[i].source.data.val();
            self.swap[1].sink.valid.next = self.swap[i].source.valid.val();
            self.swap[i].source.ready.next = self.swap[i + 1].sink.ready.val();
        }
        Source::link(&mut self.source, &mut self.swap[1].source);
    }
}

fn emitted(block: &impl Block) -> Bundle {
    let options = EmitOptions {
        top: String::new(),
        keep_hierarchy: vec!["signed_lane".to_owned()],
        ..EmitOptions::default()
    };
    let bundle = emit(block, &options).unwrap_or_else(|error| panic!("{error}"));
    assert_lint_clean(&bundle);
    bundle
}

fn random_stimuli(
    widths: Vec<usize>,
    steps: usize,
    seed: u64,
) -> impl Iterator<Item = Vec<Vec<u64>>> {
    let mut random = Random(seed);
    (0..steps).map(move |step| {
        let low = |width: usize| {
            if width == 64 {
                u64::MAX
            } else {
                (1 << width) - 1
            }
        };
        // One-bit inputs that come first are reset and the like: high in the first cycle, then now and then.
        widths
            .iter()
            .enumerate()
            .map(|(i, &width)| {
                let word = if i == 0 && width == 1 {
                    u64::from(step == 0 || random.below(16) == 0)
                } else {
                    random.word() & low(width)
                };
                vec![word]
            })
            .collect()
    })
}

#[test]
fn small_modules_read_well_and_agree_cycle_by_cycle() {
    let accumulator = emitted(&Accumulator::<12>::default());
    insta::assert_snapshot!("accumulator", accumulator.concatenated());
    let handshake = emitted(&Handshake::default());
    insta::assert_snapshot!("handshake", handshake.concatenated());
    let dot = emitted(&Dot::<16>::default());
    insta::assert_snapshot!("dot", dot.concatenated());
    let names: Vec<&str> = dot
        .modules
        .iter()
        .map(|module| module.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["signed_lane_w6", "signed_lane_w4", "dot"],
        "equal lanes share a module"
    );
    let chain = emitted(&Chain::default());
    insta::assert_snapshot!("chain", chain.concatenated());

    let mut dot_widths = vec![6; 16];
    dot_widths.extend([6, 5, 6]);
    // The pipeline's registers have no reset: its first two results are not compared.
    assert_icarus_agrees(&[
        simulate_case(
            Accumulator::<12>::default(),
            accumulator,
            random_stimuli(vec![1, 1, 8], 2000, 1),
        )
        .after(1),
        simulate_case(
            Handshake::default(),
            handshake,
            random_stimuli(vec![1, 1], 2000, 2),
        )
        .after(2),
        simulate_case(
            Dot::<16>::default(),
            dot,
            random_stimuli(dot_widths, 1000, 3),
        )
        .after(2),
        simulate_case(
            Chain::default(),
            chain,
            random_stimuli(vec![8, 1, 1], 1000, 4),
        ),
    ]);
}

#[test]
fn a_bundle_is_written_one_file_a_module() {
    let bundle = emitted(&Dot::<16>::default());
    let folder = tempfile::tempdir().unwrap();
    let files = bundle.write_rtl(&folder.path().join("rtl")).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["signed_lane_w6.v", "signed_lane_w4.v", "dot.v"]);
    assert_eq!(
        std::fs::read_to_string(&files[2]).unwrap(),
        bundle.top_module().source
    );
    assert_eq!(bundle.top_module().instances.len(), 17);
    assert_eq!(
        bundle.top_module().parameters,
        [("LANES".to_owned(), "16".to_owned())]
    );
}
