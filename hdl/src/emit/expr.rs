//! Typed expressions: every one knows its width, and means what the Rust simulation computes.
//!
//! The constructors simplify only where that lets the text say it more plainly (slices of slices, constants). All values
//! are bit vectors; an operation that depends on a sign says so itself.

use super::constant::{decode, encode};
use num_bigint::{BigInt, BigUint};
use std::rc::Rc;

/// Number of a net within one module.
pub(super) type NetId = usize;

/// A shared expression.
pub(super) type ExprRef = Rc<Expr>;

/// An expression and its width in bits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expr {
    pub width: usize,
    pub kind: Kind,
}

/// Operators on two operands of the result's width. They wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
}

/// Comparisons; the operands have equal widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Relation {
    /// The relation of the operands exchanged.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Eq | Self::Ne => self,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
        }
    }

    fn inverse(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Lt => Self::Ge,
            Self::Le => Self::Gt,
            Self::Gt => Self::Le,
            Self::Ge => Self::Lt,
        }
    }

    fn holds(self, a: &BigInt, b: &BigInt) -> bool {
        match self {
            Self::Eq => a == b,
            Self::Ne => a != b,
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
        }
    }
}

/// Reductions to one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    All,
    Any,
    Parity,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A number, with the name of the constant it comes from.
    Const(BigUint, Option<Rc<str>>),
    Net(NetId),
    /// `width` bits from bit `low` on.
    Slice {
        of: ExprRef,
        low: usize,
    },
    /// Most significant part first.
    Concat(Vec<ExprRef>),
    /// Wider than its operand.
    Extend {
        of: ExprRef,
        signed: bool,
    },
    Arithmetic(Arithmetic, ExprRef, ExprRef),
    /// Product of two sign-extended operands; as [`Arithmetic::Mul`], but says that signs matter.
    SignedProduct(ExprRef, ExprRef),
    Not(ExprRef),
    Negate(ExprRef),
    Compare {
        relation: Relation,
        signed: bool,
        left: ExprRef,
        right: ExprRef,
    },
    Reduce(Reduction, ExprRef),
    /// Logical; zero when the amount reaches the width.
    Shift {
        left: bool,
        of: ExprRef,
        amount: ExprRef,
    },
    /// One bit; `index` has exactly the bits to number those of `of`, whose width is a power of two or beyond reach.
    Select {
        of: ExprRef,
        index: ExprRef,
    },
    /// Not assigned.
    Undefined,
}

fn low_mask(width: usize) -> BigUint {
    (BigUint::from(1_u32) << width) - 1_u32
}

impl Expr {
    pub fn new(width: usize, kind: Kind) -> ExprRef {
        Rc::new(Self { width, kind })
    }

    pub fn constant(value: BigUint, width: usize) -> ExprRef {
        Self::new(width, Kind::Const(value, None))
    }

    pub fn bit(value: bool) -> ExprRef {
        Self::constant(u32::from(value).into(), 1)
    }

    pub fn zero(width: usize) -> ExprRef {
        Self::constant(BigUint::default(), width)
    }

    pub fn net(id: NetId, width: usize) -> ExprRef {
        Self::new(width, Kind::Net(id))
    }

    pub fn as_constant(&self) -> Option<&BigUint> {
        match &self.kind {
            Kind::Const(value, _) => Some(value),
            _ => None,
        }
    }

    /// Whether the text can name this without a wire of its own: a constant, a net or a slice of a net.
    pub fn is_simple(&self) -> bool {
        match &self.kind {
            Kind::Const(..) | Kind::Net(_) => true,
            Kind::Slice { of, .. } => matches!(of.kind, Kind::Net(_)),
            _ => false,
        }
    }

    pub fn slice(of: &ExprRef, low: usize, width: usize) -> ExprRef {
        debug_assert!(width > 0 && low + width <= of.width);
        if low == 0 && width == of.width {
            return Rc::clone(of);
        }
        match &of.kind {
            Kind::Const(value, _) => Self::constant((value >> low) & low_mask(width), width),
            Kind::Slice {
                of: inner,
                low: inner_low,
            } => Self::slice(inner, inner_low + low, width),
            Kind::Undefined => Self::new(width, Kind::Undefined),
            Kind::Concat(parts) => {
                let mut kept = Vec::new();
                let mut base = of.width;
                for part in parts {
                    base -= part.width;
                    let (from, to) = (low.max(base), (low + width).min(base + part.width));
                    if from < to {
                        kept.push(Self::slice(part, from - base, to - from));
                    }
                }
                Self::concat(kept)
            }
            Kind::Extend { of: inner, signed } => {
                if low + width <= inner.width {
                    Self::slice(inner, low, width)
                } else if low < inner.width {
                    Self::extend(&Self::slice(inner, low, inner.width - low), width, *signed)
                } else if *signed {
                    Self::extend(&Self::slice(inner, inner.width - 1, 1), width, true)
                } else {
                    Self::zero(width)
                }
            }
            // The low bits of these depend on the low bits of the operands alone.
            Kind::Arithmetic(op, a, b)
                if low == 0 || matches!(op, Arithmetic::And | Arithmetic::Or | Arithmetic::Xor) =>
            {
                Self::arithmetic(
                    *op,
                    &Self::slice(a, low, width),
                    &Self::slice(b, low, width),
                )
            }
            Kind::Not(a) => Self::not(&Self::slice(a, low, width)),
            Kind::Negate(a) if low == 0 => Self::negate(&Self::slice(a, low, width)),
            _ => Self::new(
                width,
                Kind::Slice {
                    of: Rc::clone(of),
                    low,
                },
            ),
        }
    }

    /// Joins parts, most significant first.
    pub fn concat(parts: Vec<ExprRef>) -> ExprRef {
        let mut flat: Vec<ExprRef> = Vec::new();
        for part in parts {
            match &part.kind {
                Kind::Concat(inner) => flat.extend(inner.iter().cloned()),
                _ if part.width == 0 => {}
                _ => flat.push(part),
            }
        }
        let mut merged: Vec<ExprRef> = Vec::new();
        for part in flat {
            let joined = merged
                .last()
                .and_then(|last| match (&last.kind, &part.kind) {
                    (Kind::Const(high, None), Kind::Const(low, None)) => Some(Self::constant(
                        (high << part.width) | low,
                        last.width + part.width,
                    )),
                    (Kind::Slice { of: a, low: a_low }, Kind::Slice { of: b, low: b_low })
                        if a == b && *a_low == b_low + part.width =>
                    {
                        Some(Self::slice(a, *b_low, last.width + part.width))
                    }
                    _ => None,
                });
            match joined {
                Some(joined) => {
                    merged.pop();
                    merged.push(joined);
                }
                None => merged.push(part),
            }
        }
        match merged.as_slice() {
            [only] => Rc::clone(only),
            _ => Self::new(
                merged.iter().map(|part| part.width).sum(),
                Kind::Concat(merged),
            ),
        }
    }

    pub fn extend(of: &ExprRef, width: usize, signed: bool) -> ExprRef {
        debug_assert!(width >= of.width);
        if width == of.width {
            return Rc::clone(of);
        }
        if let Kind::Const(value, _) = &of.kind {
            let negative = signed && value.bit(of.width as u64 - 1);
            let value = if negative {
                value | (low_mask(width) ^ low_mask(of.width))
            } else {
                value.clone()
            };
            return Self::constant(value, width);
        }
        Self::new(
            width,
            Kind::Extend {
                of: Rc::clone(of),
                signed,
            },
        )
    }

    /// Zero- or sign-extends, or truncates.
    pub fn resize(of: &ExprRef, width: usize, signed: bool) -> ExprRef {
        if width <= of.width {
            Self::slice(of, 0, width)
        } else {
            Self::extend(of, width, signed)
        }
    }

    pub fn arithmetic(op: Arithmetic, a: &ExprRef, b: &ExprRef) -> ExprRef {
        debug_assert_eq!(a.width, b.width);
        let zero = |e: &ExprRef| e.as_constant().is_some_and(|value| value.bits() == 0);
        if let (Some(a_value), Some(b_value)) = (a.as_constant(), b.as_constant()) {
            let modulus = BigUint::from(1_u32) << a.width;
            let value = match op {
                Arithmetic::Add => a_value + b_value,
                Arithmetic::Sub => a_value + &modulus - b_value,
                Arithmetic::Mul => a_value * b_value,
                Arithmetic::And => a_value & b_value,
                Arithmetic::Or => a_value | b_value,
                Arithmetic::Xor => a_value ^ b_value,
            };
            return Self::constant(value % modulus, a.width);
        }
        match op {
            Arithmetic::Add | Arithmetic::Or | Arithmetic::Xor if zero(a) => Rc::clone(b),
            Arithmetic::Add | Arithmetic::Or | Arithmetic::Xor | Arithmetic::Sub if zero(b) => {
                Rc::clone(a)
            }
            Arithmetic::And | Arithmetic::Mul if zero(a) || zero(b) => Self::zero(a.width),
            _ => Self::new(a.width, Kind::Arithmetic(op, Rc::clone(a), Rc::clone(b))),
        }
    }

    pub fn not(a: &ExprRef) -> ExprRef {
        match &a.kind {
            Kind::Const(value, _) => Self::constant(value ^ low_mask(a.width), a.width),
            Kind::Not(inner) => Rc::clone(inner),
            Kind::Compare {
                relation,
                signed,
                left,
                right,
            } => {
                let (left, right) = (Rc::clone(left), Rc::clone(right));
                Self::new(
                    1,
                    Kind::Compare {
                        relation: relation.inverse(),
                        signed: *signed,
                        left,
                        right,
                    },
                )
            }
            _ => Self::new(a.width, Kind::Not(Rc::clone(a))),
        }
    }

    /// Compares operands of one width. What the width decides alone is a constant, for tools warn of such comparisons.
    pub fn compare(relation: Relation, signed: bool, left: &ExprRef, right: &ExprRef) -> ExprRef {
        let number = |e: &ExprRef| e.as_constant().map(|bits| decode(bits, e.width, signed));
        match (number(left), number(right)) {
            (Some(a), Some(b)) => Some(Self::bit(relation.holds(&a, &b))),
            (None, Some(b)) => Self::decided(relation, signed, left.width, &b),
            (Some(a), None) => Self::decided(relation.mirrored(), signed, right.width, &a),
            (None, None) => None,
        }
        .unwrap_or_else(|| {
            let same = matches!(relation, Relation::Eq | Relation::Ne);
            // A bool compared with a constant bool is that bool or its inverse.
            if let (1, true, Some(bit)) = (
                left.width,
                same,
                right.as_constant().map(|value| value.bit(0)),
            ) {
                return if bit == (relation == Relation::Eq) {
                    Rc::clone(left)
                } else {
                    Self::not(left)
                };
            }
            let (left, right) = (Rc::clone(left), Rc::clone(right));
            Self::new(
                1,
                Kind::Compare {
                    relation,
                    signed: signed && !same,
                    left,
                    right,
                },
            )
        })
    }

    /// Compares with a number that may lie beyond what the width holds.
    pub fn compare_with_number(
        relation: Relation,
        signed: bool,
        value: &ExprRef,
        number: &BigInt,
    ) -> ExprRef {
        match (
            Self::decided(relation, signed, value.width, number),
            encode(number, value.width, signed),
        ) {
            (None, Some(bits)) => {
                Self::compare(relation, signed, value, &Self::constant(bits, value.width))
            }
            (decided, _) => decided.unwrap_or_else(|| Self::bit(relation == Relation::Ne)),
        }
    }

    /// The result of comparing any value of `width` bits with a number, if it is the same for all.
    fn decided(relation: Relation, signed: bool, width: usize, number: &BigInt) -> Option<ExprRef> {
        let (low, high) = if signed {
            let half = BigInt::from(1) << (width - 1);
            (-half.clone(), half - 1)
        } else {
            (BigInt::from(0), (BigInt::from(1) << width) - 1)
        };
        let (at_low, at_high) = (relation.holds(&low, number), relation.holds(&high, number));
        let decided = match relation {
            Relation::Eq | Relation::Ne => *number < low || *number > high,
            _ => at_low == at_high,
        };
        decided.then(|| Self::bit(at_low))
    }

    /// Two's complement negation; wraps.
    pub fn negate(a: &ExprRef) -> ExprRef {
        match &a.kind {
            Kind::Const(..) => Self::arithmetic(Arithmetic::Sub, &Self::zero(a.width), a),
            _ => Self::new(a.width, Kind::Negate(Rc::clone(a))),
        }
    }

    pub fn reduce(reduction: Reduction, a: &ExprRef) -> ExprRef {
        match a.as_constant() {
            _ if a.width == 1 => Rc::clone(a),
            Some(value) => Self::bit(match reduction {
                Reduction::All => *value == low_mask(a.width),
                Reduction::Any => value.bits() > 0,
                Reduction::Parity => value.count_ones() % 2 == 1,
            }),
            None => Self::new(1, Kind::Reduce(reduction, Rc::clone(a))),
        }
    }

    /// Shifts by a signal; zero when the amount reaches the width.
    pub fn shift(of: &ExprRef, left: bool, amount: &ExprRef) -> ExprRef {
        match amount.as_constant() {
            Some(amount) => Self::shift_by(of, left, usize::try_from(amount).unwrap_or(usize::MAX)),
            None if of.as_constant().is_some_and(|value| value.bits() == 0) => Self::zero(of.width),
            None => Self::new(
                of.width,
                Kind::Shift {
                    left,
                    of: Rc::clone(of),
                    amount: Rc::clone(amount),
                },
            ),
        }
    }

    /// One bit at a signal's position: `index` has the bits to number those of `of` and reaches none beyond.
    pub fn select(of: &ExprRef, index: &ExprRef) -> ExprRef {
        let constant = index
            .as_constant()
            .and_then(|index| usize::try_from(index).ok());
        match constant {
            Some(index) if index < of.width => Self::slice(of, index, 1),
            _ if of.as_constant().is_some() => Self::slice(&Self::shift(of, false, index), 0, 1),
            _ => Self::new(
                1,
                Kind::Select {
                    of: Rc::clone(of),
                    index: Rc::clone(index),
                },
            ),
        }
    }

    /// Shifts by a constant; zero when the amount reaches the width.
    pub fn shift_by(of: &ExprRef, left: bool, amount: usize) -> ExprRef {
        let width = of.width;
        if amount >= width {
            return Self::zero(width);
        }
        if amount == 0 {
            return Rc::clone(of);
        }
        if let Some(value) = of.as_constant() {
            let value = if left {
                (value << amount) & low_mask(width)
            } else {
                value >> amount
            };
            return Self::constant(value, width);
        }
        let simple = of.is_simple() || matches!(of.kind, Kind::Concat(_) | Kind::Extend { .. });
        if !simple {
            let bits = (usize::BITS - amount.leading_zeros()) as usize;
            return Self::new(
                width,
                Kind::Shift {
                    left,
                    of: Rc::clone(of),
                    amount: Self::constant(amount.into(), bits),
                },
            );
        }
        if left {
            Self::concat(vec![Self::slice(of, 0, width - amount), Self::zero(amount)])
        } else {
            Self::extend(&Self::slice(of, amount, width - amount), width, false)
        }
    }

    /// The operands, for walks.
    pub fn operands(&self) -> Vec<&ExprRef> {
        match &self.kind {
            Kind::Const(..) | Kind::Net(_) | Kind::Undefined => Vec::new(),
            Kind::Slice { of, .. } | Kind::Extend { of, .. } => vec![of],
            Kind::Not(a) | Kind::Negate(a) | Kind::Reduce(_, a) => vec![a],
            Kind::Concat(parts) => parts.iter().collect(),
            Kind::Arithmetic(_, a, b) | Kind::SignedProduct(a, b) => vec![a, b],
            Kind::Compare { left, right, .. } => vec![left, right],
            Kind::Shift { of, amount, .. } => vec![of, amount],
            Kind::Select { of, index } => vec![of, index],
        }
    }

    pub fn has_undefined(&self) -> bool {
        matches!(self.kind, Kind::Undefined)
            || self
                .operands()
                .iter()
                .any(|operand| operand.has_undefined())
    }

    /// Replaces nets, simplifying again what is built from them.
    pub fn substitute(self: &Rc<Self>, replacement: &dyn Fn(NetId) -> Option<ExprRef>) -> ExprRef {
        let sub = |e: &ExprRef| e.substitute(replacement);
        match &self.kind {
            Kind::Const(..) | Kind::Undefined => Rc::clone(self),
            Kind::Net(id) => replacement(*id).unwrap_or_else(|| Rc::clone(self)),
            Kind::Slice { of, low } => Self::slice(&sub(of), *low, self.width),
            Kind::Concat(parts) => Self::concat(parts.iter().map(sub).collect()),
            Kind::Extend { of, signed } => Self::extend(&sub(of), self.width, *signed),
            Kind::Arithmetic(op, a, b) => Self::arithmetic(*op, &sub(a), &sub(b)),
            Kind::SignedProduct(a, b) => Self::new(self.width, Kind::SignedProduct(sub(a), sub(b))),
            Kind::Not(a) => Self::not(&sub(a)),
            Kind::Negate(a) => Self::negate(&sub(a)),
            Kind::Compare {
                relation,
                signed,
                left,
                right,
            } => Self::compare(*relation, *signed, &sub(left), &sub(right)),
            Kind::Reduce(op, a) => Self::reduce(*op, &sub(a)),
            Kind::Shift { left, of, amount } => Self::shift(&sub(of), *left, &sub(amount)),
            Kind::Select { of, index } => Self::select(&sub(of), &sub(index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_reach_through_extension_concatenation_and_sums() {
        let (a, b) = (Expr::net(0, 8), Expr::net(1, 8));
        let joined = Expr::concat(vec![Rc::clone(&a), Rc::clone(&b)]);
        assert_eq!(Expr::slice(&joined, 8, 8), a);
        assert_eq!(
            Expr::slice(&joined, 4, 8),
            Expr::concat(vec![Expr::slice(&a, 0, 4), Expr::slice(&b, 4, 4)])
        );
        assert_eq!(
            Expr::concat(vec![Expr::slice(&a, 4, 4), Expr::slice(&a, 0, 4)]),
            a
        );
        let wide = Expr::extend(&a, 16, false);
        assert_eq!(Expr::slice(&wide, 8, 4), Expr::zero(4));
        assert_eq!(Expr::slice(&wide, 2, 4), Expr::slice(&a, 2, 4));
        let sum = Expr::arithmetic(Arithmetic::Add, &a, &b);
        assert_eq!(
            Expr::slice(&sum, 0, 4),
            Expr::arithmetic(
                Arithmetic::Add,
                &Expr::slice(&a, 0, 4),
                &Expr::slice(&b, 0, 4)
            )
        );
        assert!(
            matches!(Expr::slice(&sum, 1, 4).kind, Kind::Slice { .. }),
            "a carry comes from below"
        );
    }

    #[test]
    fn constants_keep_their_sign() {
        let minus_one = Expr::constant(15_u32.into(), 4);
        assert_eq!(
            Expr::extend(&minus_one, 8, true).as_constant(),
            Some(&255_u32.into())
        );
        assert_eq!(
            Expr::extend(&minus_one, 8, false).as_constant(),
            Some(&15_u32.into())
        );
    }

    #[test]
    fn shifts_by_constants_become_wiring() {
        let a = Expr::net(0, 8);
        assert_eq!(Expr::shift_by(&a, true, 8), Expr::zero(8));
        assert_eq!(
            Expr::shift_by(&a, false, 3),
            Expr::extend(&Expr::slice(&a, 3, 5), 8, false)
        );
        assert_eq!(Expr::shift_by(&a, true, 0), a);
    }
}
