//! Random kernels: the emitted Verilog against an interpreter of the same statements with Rust's meaning.
//!
//! The generator builds typed expressions, from which come both the syntax tree that `#[hdl_gen]` would have made and the
//! value that Rust's types would have computed (integers modulo 2^width, written here without the emitter).
#![allow(clippy::panic, reason = "a helper fails the test that calls it")]

mod support;

use hdl::emit::{EmitOptions, emit};
use hdl::kernel::{CastWidth, Description, describe};
use hdl::prelude::*;
use rust_hdl_core::ast::{
    VerilogBlock, VerilogBlockOrConditional, VerilogCase, VerilogConditional, VerilogExpression,
    VerilogLoop, VerilogMatch, VerilogOp, VerilogOpUnary, VerilogStatement,
};
use std::collections::BTreeMap;
use support::{Random, assert_icarus_agrees, assert_lint_clean, simulate_case};

/// Programs in one run, and vectors for each.
const PROGRAMS: u64 = 400;
const VECTORS: usize = 150;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ty {
    width: usize,
    signed: bool,
}

const fn bits(width: usize) -> Ty {
    Ty {
        width,
        signed: false,
    }
}

const fn signed(width: usize) -> Ty {
    Ty {
        width,
        signed: true,
    }
}

const WIDTHS: [usize; 7] = [1, 4, 5, 8, 12, 16, 32];

/// The signals of every random kernel.
const INPUTS: [(&str, Ty); 5] = [
    ("a", bits(8)),
    ("b", bits(8)),
    ("c", bits(5)),
    ("s", signed(8)),
    ("flag", bits(1)),
];
const TARGETS: [(&str, Ty); 8] = [
    ("t", bits(8)),
    ("u", bits(16)),
    ("v", signed(8)),
    ("y", bits(8)),
    ("z", bits(16)),
    ("w", signed(12)),
    ("p", bits(32)),
    ("q", bits(1)),
];

#[derive(Clone, Copy, Debug)]
enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Debug)]
enum Tree {
    Signal(&'static str),
    /// A bare literal; only beside something typed.
    Literal(i64),
    /// `bits::<N>(literal)`.
    SizedLiteral(u64),
    LoopVariable(String),
    /// `Bits + bool`.
    AddBool(Box<Expr>, Box<Expr>),
    Op(Op, Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    ShiftBy {
        left: bool,
        of: Box<Expr>,
        amount: u64,
    },
    Shift {
        left: bool,
        of: Box<Expr>,
        amount: Box<Expr>,
    },
    /// `bit_cast`: as rust-hdl writes it, or as `#[kernel]` rewrites it.
    Resize {
        of: Box<Expr>,
        rewritten: bool,
    },
    SignExtend {
        of: Box<Expr>,
        stated: bool,
    },
    Reinterpret(Box<Expr>),
    Slice {
        of: Box<Expr>,
        offset: usize,
    },
    DynamicSlice {
        of: Box<Expr>,
        offset: Box<Expr>,
    },
    Bit {
        of: Box<Expr>,
        offset: usize,
    },
    DynamicBit {
        of: Box<Expr>,
        offset: Box<Expr>,
    },
    ReplaceBit {
        of: Box<Expr>,
        offset: usize,
        bit: Box<Expr>,
    },
    Compare(Compare, Box<Expr>, Box<Expr>),
    Both(Box<Expr>, Box<Expr>),
    Either(Box<Expr>, Box<Expr>),
    Reduce(u8, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
}

#[derive(Clone, Debug)]
struct Expr {
    ty: Ty,
    tree: Tree,
}

#[derive(Clone, Debug)]
enum Stmt {
    Assign(&'static str, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    ElseIf(Expr, Vec<Stmt>, Box<Stmt>),
    Match(Expr, Vec<(u64, Vec<Stmt>)>, Vec<Stmt>),
    Loop(String, u64, u64, Vec<Stmt>),
}

fn mask(width: usize) -> u64 {
    if width == 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    }
}

fn as_signed(value: u64, width: usize) -> i64 {
    ((value << (64 - width)) as i64) >> (64 - width)
}

type Values = BTreeMap<String, u64>;

fn number(value: u64, ty: Ty) -> i64 {
    if ty.signed {
        as_signed(value, ty.width)
    } else {
        value as i64
    }
}

fn eval(expr: &Expr, values: &Values) -> u64 {
    let width = expr.ty.width;
    let keep = |value: u64| value & mask(width);
    let shift = |left: bool, value: u64, amount: u64| {
        if amount >= width as u64 {
            0
        } else if left {
            keep(value << amount)
        } else {
            value >> amount
        }
    };
    match &expr.tree {
        Tree::Signal(name) => values[*name],
        Tree::LoopVariable(name) => keep(values[name]),
        Tree::Literal(value) => keep(*value as u64),
        Tree::SizedLiteral(value) => *value,
        Tree::AddBool(a, b) => keep(eval(a, values) + eval(b, values)),
        Tree::Op(op, a, b) => {
            let (left, right) = (eval(a, values), eval(b, values));
            keep(match op {
                Op::Add => left.wrapping_add(right),
                Op::Sub => left.wrapping_sub(right),
                Op::Mul => number(left, a.ty).wrapping_mul(number(right, b.ty)) as u64,
                Op::And => left & right,
                Op::Or => left | right,
                Op::Xor => left ^ right,
            })
        }
        Tree::Not(a) => keep(!eval(a, values)),
        Tree::Negate(a) => keep(eval(a, values).wrapping_neg()),
        Tree::ShiftBy { left, of, amount } => shift(*left, eval(of, values), *amount),
        Tree::Shift { left, of, amount } => shift(*left, eval(of, values), eval(amount, values)),
        Tree::Resize { of, .. } | Tree::Reinterpret(of) => keep(eval(of, values)),
        Tree::SignExtend { of, .. } => keep(as_signed(eval(of, values), of.ty.width) as u64),
        Tree::Slice { of, offset } | Tree::Bit { of, offset } => keep(eval(of, values) >> offset),
        Tree::DynamicSlice { of, offset } | Tree::DynamicBit { of, offset } => {
            keep(eval(of, values) >> eval(offset, values))
        }
        Tree::ReplaceBit { of, offset, bit } => {
            eval(of, values) & !(1 << offset) | eval(bit, values) << offset
        }
        Tree::Compare(compare, a, b) => {
            let (a, b) = (number(eval(a, values), a.ty), number(eval(b, values), b.ty));
            u64::from(match compare {
                Compare::Eq => a == b,
                Compare::Ne => a != b,
                Compare::Lt => a < b,
                Compare::Le => a <= b,
                Compare::Gt => a > b,
                Compare::Ge => a >= b,
            })
        }
        Tree::Both(a, b) => eval(a, values) & eval(b, values),
        Tree::Either(a, b) => eval(a, values) | eval(b, values),
        Tree::Reduce(kind, a) => {
            let value = eval(a, values);
            u64::from(match kind {
                0 => value != 0,
                1 => value == mask(a.ty.width),
                _ => value.count_ones() % 2 == 1,
            })
        }
    }
}

fn run(block: &[Stmt], values: &mut Values) {
    for statement in block {
        match statement {
            Stmt::Assign(target, expr) => {
                let value = eval(expr, values);
                values.insert((*target).to_owned(), value);
            }
            Stmt::If(test, then, otherwise) => run(
                if eval(test, values) == 1 {
                    then
                } else {
                    otherwise
                },
                values,
            ),
            Stmt::ElseIf(test, then, otherwise) => {
                if eval(test, values) == 1 {
                    run(then, values);
                } else {
                    run(std::slice::from_ref(otherwise), values);
                }
            }
            Stmt::Match(test, arms, default) => {
                let value = eval(test, values);
                let arm = arms
                    .iter()
                    .find(|(label, _)| *label == value)
                    .map_or(default, |(_, arm)| arm);
                run(arm, values);
            }
            Stmt::Loop(variable, from, to, body) => {
                for trip in *from..*to {
                    values.insert(variable.clone(), trip);
                    run(body, values);
                }
                values.remove(variable);
            }
        }
    }
}

// ---- to rust-hdl's tree ----------------------------------------------------------------------------------------------

fn op_ast(op: Op) -> VerilogOp {
    match op {
        Op::Add => VerilogOp::Add,
        Op::Sub => VerilogOp::Sub,
        Op::Mul => VerilogOp::Mul,
        Op::And => VerilogOp::BitAnd,
        Op::Or => VerilogOp::BitOr,
        Op::Xor => VerilogOp::BitXor,
    }
}

fn ast(expr: &Expr, casts: &mut Vec<CastWidth>) -> VerilogExpression {
    use VerilogExpression as E;
    let boxed =
        |expr: &Expr, casts: &mut Vec<CastWidth>| Box::new(E::Paren(Box::new(ast(expr, casts))));
    let number = |value: u64| Box::new(E::Literal(value.into()));
    match &expr.tree {
        Tree::Signal(name) => E::Signal((*name).to_owned()),
        Tree::LoopVariable(name) => E::Signal(name.clone()),
        Tree::Literal(value) if *value < 0 => {
            E::Unary(VerilogOpUnary::Neg, number(value.unsigned_abs()))
        }
        Tree::Literal(value) => E::Literal((*value as u64).into()),
        Tree::SizedLiteral(value) => E::Cast(number(*value), expr.ty.width),
        Tree::AddBool(a, b) => {
            let a = boxed(a, casts);
            E::Binary(a, VerilogOp::Add, boxed(b, casts))
        }
        Tree::Op(op, a, b) => {
            let a = boxed(a, casts);
            E::Binary(a, op_ast(*op), boxed(b, casts))
        }
        Tree::Not(a) => E::Unary(VerilogOpUnary::Not, boxed(a, casts)),
        Tree::Negate(a) => E::Unary(VerilogOpUnary::Neg, boxed(a, casts)),
        Tree::ShiftBy { left, of, amount } => E::Binary(
            boxed(of, casts),
            if *left {
                VerilogOp::Shl
            } else {
                VerilogOp::Shr
            },
            number(*amount),
        ),
        Tree::Shift { left, of, amount } => {
            let of = boxed(of, casts);
            E::Binary(
                of,
                if *left {
                    VerilogOp::Shl
                } else {
                    VerilogOp::Shr
                },
                boxed(amount, casts),
            )
        }
        Tree::Resize {
            of,
            rewritten: false,
        } => E::Cast(boxed(of, casts), expr.ty.width),
        Tree::Resize {
            of,
            rewritten: true,
        } => {
            casts.push(CastWidth::Given(expr.ty.width));
            E::Unsigned(boxed(of, casts))
        }
        Tree::SignExtend { of, stated } => {
            casts.push(if *stated {
                CastWidth::Given(expr.ty.width)
            } else {
                CastWidth::Inferred
            });
            E::Signed(boxed(of, casts))
        }
        Tree::Reinterpret(of) => {
            casts.push(CastWidth::Same);
            let of = boxed(of, casts);
            if expr.ty.signed {
                E::Signed(of)
            } else {
                E::Unsigned(of)
            }
        }
        Tree::Slice { of, offset } => {
            E::Slice(boxed(of, casts), expr.ty.width, number(*offset as u64))
        }
        Tree::DynamicSlice { of, offset } => {
            let of = boxed(of, casts);
            E::Slice(of, expr.ty.width, boxed(offset, casts))
        }
        Tree::Bit { of, offset } => E::Index(boxed(of, casts), number(*offset as u64)),
        Tree::DynamicBit { of, offset } => {
            let of = boxed(of, casts);
            E::Index(of, boxed(offset, casts))
        }
        Tree::ReplaceBit { of, offset, bit } => {
            let of = boxed(of, casts);
            E::IndexReplace(of, number(*offset as u64), boxed(bit, casts))
        }
        Tree::Compare(compare, a, b) => {
            let op = match compare {
                Compare::Eq => VerilogOp::Eq,
                Compare::Ne => VerilogOp::Ne,
                Compare::Lt => VerilogOp::Lt,
                Compare::Le => VerilogOp::Le,
                Compare::Gt => VerilogOp::Gt,
                Compare::Ge => VerilogOp::Ge,
            };
            let a = boxed(a, casts);
            E::Binary(a, op, boxed(b, casts))
        }
        Tree::Both(a, b) => {
            let a = boxed(a, casts);
            E::Binary(a, VerilogOp::LogicalAnd, boxed(b, casts))
        }
        Tree::Either(a, b) => {
            let a = boxed(a, casts);
            E::Binary(a, VerilogOp::LogicalOr, boxed(b, casts))
        }
        Tree::Reduce(kind, a) => {
            let op = match kind {
                0 => VerilogOpUnary::Any,
                1 => VerilogOpUnary::All,
                _ => VerilogOpUnary::Xor,
            };
            E::Unary(op, boxed(a, casts))
        }
    }
}

fn block_ast(block: &[Stmt], casts: &mut Vec<CastWidth>) -> VerilogBlock {
    block
        .iter()
        .map(|statement| statement_ast(statement, casts))
        .collect()
}

fn statement_ast(statement: &Stmt, casts: &mut Vec<CastWidth>) -> VerilogStatement {
    match statement {
        Stmt::Assign(target, expr) => VerilogStatement::Assignment(
            VerilogExpression::Signal(format!("{target}$next")),
            ast(expr, casts),
        ),
        Stmt::If(test, then, otherwise) => {
            let test = ast(test, casts);
            let then = block_ast(then, casts);
            let otherwise = if otherwise.is_empty() {
                VerilogBlockOrConditional::None
            } else {
                VerilogBlockOrConditional::Block(block_ast(otherwise, casts))
            };
            VerilogStatement::If(VerilogConditional {
                test,
                then,
                otherwise,
            })
        }
        Stmt::ElseIf(test, then, otherwise) => {
            let test = ast(test, casts);
            let then = block_ast(then, casts);
            let otherwise =
                VerilogBlockOrConditional::Conditional(Box::new(statement_ast(otherwise, casts)));
            VerilogStatement::If(VerilogConditional {
                test,
                then,
                otherwise,
            })
        }
        Stmt::Match(test, arms, default) => {
            let test = ast(test, casts);
            let mut cases: Vec<VerilogCase> = arms
                .iter()
                .map(|(label, arm)| VerilogCase {
                    condition: format!("0x{label:x}"),
                    block: block_ast(arm, casts),
                })
                .collect();
            cases.push(VerilogCase {
                condition: "default".to_owned(),
                block: block_ast(default, casts),
            });
            VerilogStatement::Match(VerilogMatch { test, cases })
        }
        Stmt::Loop(variable, from, to, body) => VerilogStatement::Loop(VerilogLoop {
            index: variable.clone(),
            from: (*from).into(),
            to: (*to).into(),
            block: block_ast(body, casts),
        }),
    }
}

// ---- generation ------------------------------------------------------------------------------------------------------

struct Generator {
    random: Random,
    /// Signals that may be read.
    readable: Vec<(&'static str, Ty)>,
    /// Signals that may be assigned.
    targets: Vec<(&'static str, Ty)>,
    loops: Vec<String>,
}

impl Generator {
    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn width(&mut self) -> usize {
        WIDTHS[self.random.below(WIDTHS.len() as u64) as usize]
    }

    fn boxed(&mut self, ty: Ty, depth: u32) -> Box<Expr> {
        Box::new(self.typed(ty, depth))
    }

    /// An expression whose type the tree shows.
    fn typed(&mut self, ty: Ty, depth: u32) -> Expr {
        let tree = if depth == 0 {
            self.leaf(ty)
        } else {
            self.node(ty, depth - 1)
        };
        Expr { ty, tree }
    }

    /// As [`Self::typed`], or now and then a bare number.
    fn operand(&mut self, ty: Ty, depth: u32) -> Box<Expr> {
        if !self.chance(4) || ty.width == 1 {
            return self.boxed(ty, depth);
        }
        if let Some(variable) = self.loops.last().cloned().filter(|_| ty.width >= 4) {
            return Box::new(Expr {
                ty,
                tree: Tree::LoopVariable(variable),
            });
        }
        let value = self.random.word() & mask(ty.width);
        let value = if ty.signed {
            as_signed(value, ty.width)
        } else {
            value as i64
        };
        Box::new(Expr {
            ty,
            tree: Tree::Literal(value),
        })
    }

    fn leaf(&mut self, ty: Ty) -> Tree {
        let same: Vec<&'static str> = self
            .readable
            .iter()
            .filter(|(_, known)| *known == ty)
            .map(|(name, _)| *name)
            .collect();
        if !same.is_empty() && !self.chance(5) {
            return Tree::Signal(same[self.random.below(same.len() as u64) as usize]);
        }
        if ty.signed {
            let unsigned = Expr {
                ty: bits(ty.width),
                tree: self.leaf(bits(ty.width)),
            };
            return Tree::Reinterpret(Box::new(unsigned));
        }
        if !same.is_empty() || self.chance(3) {
            return Tree::SizedLiteral(self.random.word() & mask(ty.width));
        }
        let input = [bits(8), bits(5)][self.random.below(2) as usize];
        let of = self.boxed(input, 0);
        Tree::Resize {
            of,
            rewritten: self.chance(2),
        }
    }

    fn node(&mut self, ty: Ty, depth: u32) -> Tree {
        let ops = [Op::Add, Op::Sub, Op::And, Op::Or, Op::Xor];
        if ty.signed {
            return match self.random.below(8) {
                0 | 1 => {
                    let op = ops[self.random.below(2) as usize];
                    let a = self.boxed(ty, depth);
                    Tree::Op(op, a, self.operand(ty, depth))
                }
                2 => Tree::Negate(self.boxed(ty, depth)),
                3 => Tree::Reinterpret(self.boxed(bits(ty.width), depth)),
                4 | 5 => {
                    let from = signed(self.width());
                    Tree::SignExtend {
                        of: self.boxed(from, depth),
                        stated: true,
                    }
                }
                6 if ty.width == 32 => {
                    let a = self.boxed(signed(16), depth);
                    Tree::Op(Op::Mul, a, self.boxed(signed(16), depth))
                }
                6 => {
                    let from = signed(self.width().max(ty.width));
                    let offset = self.random.below(from.width as u64) as usize;
                    Tree::Slice {
                        of: self.boxed(from, depth),
                        offset,
                    }
                }
                _ => self.leaf(ty),
            };
        }
        if ty.width == 1 && !self.chance(3) {
            return self.condition(depth);
        }
        match self.random.below(13) {
            0..=2 => {
                let op = ops[self.random.below(if ty.width == 1 { 3 } else { 5 }) as usize];
                // bool has no arithmetic.
                let op = if ty.width == 1 { Op::Xor } else { op };
                if self.chance(2) {
                    let a = self.boxed(ty, depth);
                    Tree::Op(op, a, self.operand(ty, depth))
                } else {
                    let a = self.operand(ty, depth);
                    Tree::Op(op, a, self.boxed(ty, depth))
                }
            }
            3 => Tree::Not(self.boxed(ty, depth)),
            4 => Tree::ShiftBy {
                left: self.chance(2),
                of: self.boxed(ty, depth),
                amount: self.random.below(ty.width as u64 + 3),
            },
            5 => {
                let amount = bits([4, 5, 8][self.random.below(3) as usize]);
                let of = self.boxed(ty, depth);
                Tree::Shift {
                    left: self.chance(2),
                    of,
                    amount: self.boxed(amount, depth),
                }
            }
            6 | 7 => {
                let from = bits(self.width());
                Tree::Resize {
                    of: self.boxed(from, depth),
                    rewritten: self.chance(2),
                }
            }
            8 => {
                let from = bits(self.width());
                let offset = self.random.below(from.width as u64 + 1) as usize;
                Tree::Slice {
                    of: self.boxed(from, depth),
                    offset,
                }
            }
            9 => {
                let from = bits([16, 32][self.random.below(2) as usize]);
                let of = self.boxed(from, depth);
                Tree::DynamicSlice {
                    of,
                    offset: self.boxed(bits(4), depth),
                }
            }
            10 if ty.width == 32 => {
                let a = self.boxed(bits(16), depth);
                Tree::Op(Op::Mul, a, self.boxed(bits(16), depth))
            }
            10 if ty.width > 1 => {
                let a = self.boxed(ty, depth);
                Tree::AddBool(a, self.boxed(bits(1), depth))
            }
            11 => {
                let of = self.boxed(ty, depth);
                let offset = self.random.below(ty.width as u64) as usize;
                Tree::ReplaceBit {
                    of,
                    offset,
                    bit: self.boxed(bits(1), depth),
                }
            }
            12 => Tree::Reinterpret(self.boxed(signed(ty.width), depth)),
            _ => self.leaf(ty),
        }
    }

    fn condition(&mut self, depth: u32) -> Tree {
        match self.random.below(8) {
            0..=2 => {
                let compare = [
                    Compare::Eq,
                    Compare::Ne,
                    Compare::Lt,
                    Compare::Le,
                    Compare::Gt,
                    Compare::Ge,
                ][self.random.below(6) as usize];
                let ty = Ty {
                    width: self.width(),
                    signed: self.chance(3),
                };
                let a = self.boxed(ty, depth);
                Tree::Compare(compare, a, self.operand(ty, depth))
            }
            3 => {
                let a = self.boxed(bits(1), depth);
                Tree::Both(a, self.boxed(bits(1), depth))
            }
            4 => {
                let a = self.boxed(bits(1), depth);
                Tree::Either(a, self.boxed(bits(1), depth))
            }
            5 => {
                let ty = bits(self.width());
                Tree::Reduce(self.random.below(3) as u8, self.boxed(ty, depth))
            }
            6 => {
                let ty = bits(self.width());
                Tree::Bit {
                    of: self.boxed(ty, depth),
                    offset: self.random.below(ty.width as u64) as usize,
                }
            }
            _ => {
                let of = self.boxed(bits(16), depth);
                Tree::DynamicBit {
                    of,
                    offset: self.boxed(bits(4), depth),
                }
            }
        }
    }

    fn assignment(&mut self, depth: u32) -> Stmt {
        let (name, ty) = self.targets[self.random.below(self.targets.len() as u64) as usize];
        if ty.signed && self.chance(3) {
            let from = signed(self.width());
            let of = self.boxed(from, depth);
            return Stmt::Assign(
                name,
                Expr {
                    ty,
                    tree: Tree::SignExtend { of, stated: false },
                },
            );
        }
        Stmt::Assign(name, *self.operand(ty, depth))
    }

    fn block(&mut self, statements: u64, nesting: u32) -> Vec<Stmt> {
        (0..statements).map(|_| self.statement(nesting)).collect()
    }

    fn statement(&mut self, nesting: u32) -> Stmt {
        if nesting == 0 || self.chance(2) {
            let depth = self.random.below(3) as u32;
            return self.assignment(depth);
        }
        let (then, otherwise) = (1 + self.random.below(2), self.random.below(3));
        match self.random.below(4) {
            0 => {
                let test = self.typed(bits(1), 2);
                Stmt::If(
                    test,
                    self.block(then, nesting - 1),
                    self.block(otherwise, nesting - 1),
                )
            }
            1 => {
                let test = self.typed(bits(1), 1);
                let first = self.block(then, nesting - 1);
                let inner_test = self.typed(bits(1), 1);
                let inner = Stmt::If(
                    inner_test,
                    self.block(then, nesting - 1),
                    self.block(otherwise, nesting - 1),
                );
                Stmt::ElseIf(test, first, Box::new(inner))
            }
            2 => {
                let ty = bits([1, 4, 5][self.random.below(3) as usize]);
                let test = self.typed(ty, 1);
                let mut arms = Vec::new();
                for label in 0..1 + self.random.below(4) {
                    // Labels beyond the width are legal in Rust, where `.index()` is a usize.
                    let label = label * 3;
                    arms.push((label, self.block(then, nesting - 1)));
                }
                Stmt::Match(test, arms, self.block(otherwise, nesting - 1))
            }
            _ => {
                let variable = format!("i{}", self.loops.len());
                self.loops.push(variable.clone());
                let from = self.random.below(2);
                let to = from + self.random.below(4);
                let body = self.block(then, nesting - 1);
                self.loops.pop();
                Stmt::Loop(variable, from, to, body)
            }
        }
    }

    fn program(&mut self) -> Vec<Stmt> {
        self.readable = INPUTS.to_vec();
        let mut program = Vec::new();
        // Everything is assigned once before anything is assigned under a condition.
        for (name, ty) in TARGETS {
            program.push(Stmt::Assign(name, self.typed(ty, 2)));
            self.readable.push((name, ty));
        }
        let statements = 3 + self.random.below(6);
        program.extend(self.block(statements, 3));
        program
    }
}

// ---- the kernel ------------------------------------------------------------------------------------------------------

/// A kernel of random statements.
#[derive(LogicBlock, PortAccess)]
struct RandomKernel {
    a: Signal<In, Bits<8>>,
    b: Signal<In, Bits<8>>,
    c: Signal<In, Bits<5>>,
    s: Signal<In, Signed<8>>,
    flag: Signal<In, Bit>,
    y: Signal<Out, Bits<8>>,
    z: Signal<Out, Bits<16>>,
    w: Signal<Out, Signed<12>>,
    p: Signal<Out, Bits<32>>,
    q: Signal<Out, Bit>,
    t: Signal<Local, Bits<8>>,
    u: Signal<Local, Bits<16>>,
    v: Signal<Local, Signed<8>>,
    _number: u64,
    _program: Vec<Stmt>,
}

impl RandomKernel {
    fn new(number: u64) -> Self {
        let mut generator = Generator {
            random: Random(number),
            readable: Vec::new(),
            targets: TARGETS.to_vec(),
            loops: Vec::new(),
        };
        Self {
            a: Signal::default(),
            b: Signal::default(),
            c: Signal::default(),
            s: Signal::default(),
            flag: Signal::default(),
            y: Signal::default(),
            z: Signal::default(),
            w: Signal::default(),
            p: Signal::default(),
            q: Signal::default(),
            t: Signal::default(),
            u: Signal::default(),
            v: Signal::default(),
            _number: number,
            _program: generator.program(),
        }
    }
}

impl Logic for RandomKernel {
    fn update(&mut self) {
        let mut values = Values::new();
        values.insert("a".to_owned(), self.a.val().to_u64());
        values.insert("b".to_owned(), self.b.val().to_u64());
        values.insert("c".to_owned(), self.c.val().to_u64());
        values.insert("s".to_owned(), self.s.val().inner().to_u64());
        values.insert("flag".to_owned(), u64::from(self.flag.val()));
        run(&self._program, &mut values);
        self.y.next = values["y"].into();
        self.z.next = values["z"].into();
        self.w.next = Signed::from_words(&[values["w"]]);
        self.p.next = values["p"].into();
        self.q.next = values["q"] == 1;
    }

    fn hdl(&self) -> Verilog {
        let mut casts = Vec::new();
        let block = block_ast(&self._program, &mut casts);
        let description = Description {
            name: format!("random_{}", self._number),
            casts,
            ..Description::default()
        };
        describe(Verilog::Combinatorial(block), &description)
    }
}

/// Registers whose next values are random statements of their present ones.
#[derive(LogicBlock, PortAccess)]
struct RandomRegisters {
    clock: Signal<In, Clock>,
    reset: Signal<In, Bit>,
    a: Signal<In, Bits<8>>,
    b: Signal<In, Bits<8>>,
    c: Signal<In, Bits<5>>,
    s: Signal<In, Signed<8>>,
    flag: Signal<In, Bit>,
    y: Signal<Out, Bits<8>>,
    z: Signal<Out, Bits<16>>,
    w: Signal<Out, Signed<12>>,
    narrow: Register<Bits<8>>,
    wide: Register<Bits<16>>,
    number: Register<Signed<12>>,
    _number: u64,
    _program: Vec<Stmt>,
}

/// The registers' next and present values.
const NEXT: [(&str, Ty); 3] = [
    ("narrow$d", bits(8)),
    ("wide$d", bits(16)),
    ("number$d", signed(12)),
];
const PRESENT: [(&str, Ty); 3] = [
    ("narrow$q", bits(8)),
    ("wide$q", bits(16)),
    ("number$q", signed(12)),
];

impl RandomRegisters {
    fn new(number: u64) -> Self {
        let mut generator = Generator {
            random: Random(number ^ 0x5EED),
            readable: INPUTS.iter().chain(&PRESENT).copied().collect(),
            targets: NEXT.to_vec(),
            loops: Vec::new(),
        };
        // Every register holds by default, as `registers!` says, or starts from an expression.
        let mut program = Vec::new();
        for ((next, ty), (present, _)) in NEXT.into_iter().zip(PRESENT) {
            let held = Expr {
                ty,
                tree: Tree::Signal(present),
            };
            let first = if generator.chance(4) {
                generator.typed(ty, 2)
            } else {
                held
            };
            program.push(Stmt::Assign(next, first));
        }
        let statements = 2 + generator.random.below(5);
        program.extend(generator.block(statements, 3));
        Self {
            clock: Signal::default(),
            reset: Signal::default(),
            a: Signal::default(),
            b: Signal::default(),
            c: Signal::default(),
            s: Signal::default(),
            flag: Signal::default(),
            y: Signal::default(),
            z: Signal::default(),
            w: Signal::default(),
            narrow: Register::new(0x5A.into()),
            wide: Register::default(),
            number: Register::new(Signed::from(-5_i64)),
            _number: number,
            _program: program,
        }
    }
}

impl Logic for RandomRegisters {
    fn update(&mut self) {
        let mut values = Values::new();
        values.insert("a".to_owned(), self.a.val().to_u64());
        values.insert("b".to_owned(), self.b.val().to_u64());
        values.insert("c".to_owned(), self.c.val().to_u64());
        values.insert("s".to_owned(), self.s.val().inner().to_u64());
        values.insert("flag".to_owned(), u64::from(self.flag.val()));
        values.insert("narrow$q".to_owned(), self.narrow.q.val().to_u64());
        values.insert("wide$q".to_owned(), self.wide.q.val().to_u64());
        values.insert("number$q".to_owned(), self.number.q.val().inner().to_u64());
        run(&self._program, &mut values);
        self.narrow.d.next = values["narrow$d"].into();
        self.wide.d.next = values["wide$d"].into();
        self.number.d.next = Signed::from_words(&[values["number$d"]]);
        self.narrow.clock.next = self.clock.val();
        self.wide.clock.next = self.clock.val();
        self.number.clock.next = self.clock.val();
        self.narrow.reset.next = self.reset.val();
        self.wide.reset.next = self.reset.val();
        self.number.reset.next = self.reset.val();
        self.y.next = self.narrow.q.val();
        self.z.next = self.wide.q.val();
        self.w.next = self.number.q.val();
    }

    fn hdl(&self) -> Verilog {
        let mut casts = Vec::new();
        let mut block = block_ast(&self._program, &mut casts);
        let signal = |name: &str| VerilogExpression::Signal(name.to_owned());
        for register in ["narrow", "wide", "number"] {
            for control in ["clock", "reset"] {
                let target = signal(&format!("{register}${control}$next"));
                block.push(VerilogStatement::Assignment(target, signal(control)));
            }
        }
        for (output, register) in [("y", "narrow"), ("z", "wide"), ("w", "number")] {
            let target = signal(&format!("{output}$next"));
            block.push(VerilogStatement::Assignment(
                target,
                signal(&format!("{register}$q")),
            ));
        }
        let description = Description {
            name: format!("random_registers_{}", self._number),
            casts,
            ..Description::default()
        };
        describe(Verilog::Combinatorial(block), &description)
    }
}

#[test]
fn random_registers_mean_what_rust_means() {
    let mut cases = Vec::new();
    for number in 0..PROGRAMS / 2 {
        let kernel = RandomRegisters::new(number);
        let bundle = emit(&kernel, &EmitOptions::default())
            .unwrap_or_else(|error| panic!("{number}: {error}\n{:#?}", kernel._program));
        if number % 40 == 0 {
            assert_lint_clean(&bundle);
        }
        let mut random = Random(number);
        let stimuli = (0..VECTORS).map(|step| {
            let reset = u64::from(step == 0 || random.below(20) == 0);
            let inputs = INPUTS
                .iter()
                .map(|(_, ty)| vec![random.word() & mask(ty.width)]);
            std::iter::once(vec![reset])
                .chain(inputs)
                .collect::<Vec<_>>()
        });
        cases.push(simulate_case(kernel, bundle, stimuli).after(1));
    }
    assert_icarus_agrees(&cases);
}

#[test]
fn random_kernels_mean_what_rust_means() {
    let mut cases = Vec::new();
    for number in 0..PROGRAMS {
        let kernel = RandomKernel::new(number);
        let bundle = emit(&kernel, &EmitOptions::default())
            .unwrap_or_else(|error| panic!("{number}: {error}\n{:#?}", kernel._program));
        let mut random = Random(number ^ 0xABCD_EF01);
        let stimuli = (0..VECTORS).map(|step| {
            INPUTS
                .iter()
                .map(|(_, ty)| {
                    // The corners first, then anything.
                    let word = match step {
                        0 => 0,
                        1 => u64::MAX,
                        2 => 1 << (ty.width - 1),
                        _ => random.word(),
                    };
                    vec![word & mask(ty.width)]
                })
                .collect::<Vec<_>>()
        });
        cases.push(simulate_case(kernel, bundle, stimuli));
    }
    assert_icarus_agrees(&cases);
}

#[test]
fn random_kernels_are_lint_clean() {
    for number in 0..12 {
        let bundle = emit(&RandomKernel::new(number * 7 + 1), &EmitOptions::default())
            .unwrap_or_else(|error| panic!("{error}"));
        assert_lint_clean(&bundle);
    }
}
