//! Boolean functions of a cell's pins, for 64 streams at a time.

/// Deepest nesting of a function; Liberty's are a handful deep.
const DEPTH: usize = 32;

/// One step of a [`Logic`] in postfix order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pushes a constant.
    Constant(bool),
    /// Pushes a variable.
    Variable(u8),
    /// Inverts what was pushed last.
    Not,
    /// Replaces the last two by their conjunction.
    And,
    /// Replaces the last two by their disjunction.
    Or,
    /// Replaces the last two by their exclusive or.
    Xor,
}

/// A Boolean function of numbered variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logic {
    steps: Vec<Step>,
}

impl Logic {
    /// The function of steps in postfix order; `None` if they are no such order, or nested too deeply.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Option<Self> {
        let mut depth = 0usize;
        for step in &steps {
            match step {
                Step::Constant(_) | Step::Variable(_) => depth += 1,
                Step::Not => {
                    depth.checked_sub(1)?;
                }
                Step::And | Step::Or | Step::Xor => depth = depth.checked_sub(2)? + 1,
            }
            if depth > DEPTH || depth == 0 {
                return None;
            }
        }
        (depth == 1).then_some(Self { steps })
    }

    /// The function's value for 64 assignments at once: bit i of `variables[v]` is variable v in assignment i.
    ///
    /// A variable beyond the slice counts as 0.
    #[must_use]
    pub fn eval(&self, variables: &[u64]) -> u64 {
        let mut stack = [0u64; DEPTH];
        let mut top = 0usize;
        for step in &self.steps {
            match *step {
                Step::Constant(value) => {
                    stack[top] = if value { u64::MAX } else { 0 };
                    top += 1;
                }
                Step::Variable(v) => {
                    stack[top] = variables.get(usize::from(v)).copied().unwrap_or(0);
                    top += 1;
                }
                Step::Not => stack[top - 1] = !stack[top - 1],
                Step::And => {
                    top -= 1;
                    stack[top - 1] &= stack[top];
                }
                Step::Or => {
                    top -= 1;
                    stack[top - 1] |= stack[top];
                }
                Step::Xor => {
                    top -= 1;
                    stack[top - 1] ^= stack[top];
                }
            }
        }
        stack[0]
    }

    /// The variables that it names, each once, in order.
    #[must_use]
    pub fn variables(&self) -> Vec<u8> {
        let mut variables: Vec<u8> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Variable(v) => Some(*v),
                _ => None,
            })
            .collect();
        variables.sort_unstable();
        variables.dedup();
        variables
    }

    /// The function with one variable replaced by another function; `None` if that nests too deeply.
    #[must_use]
    pub fn substituted(&self, variable: u8, by: &Self) -> Option<Self> {
        let mut steps = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            if *step == Step::Variable(variable) {
                steps.extend_from_slice(&by.steps);
            } else {
                steps.push(*step);
            }
        }
        Self::new(steps)
    }

    /// The function with other numbers for its variables; `None` if one has none.
    #[must_use]
    pub fn renumbered(&self, number: impl Fn(u8) -> Option<u8>) -> Option<Self> {
        let step = |step: &Step| match step {
            Step::Variable(v) => number(*v).map(Step::Variable),
            other => Some(*other),
        };
        let steps = self.steps.iter().map(step).collect::<Option<_>>()?;
        Some(Self { steps })
    }

    /// The truth table over at most six variables: bit i is the value where variable `inputs[v]` is bit v of i.
    ///
    /// `None` if there are more, or it names another variable.
    #[must_use]
    pub fn truth(&self, inputs: &[u8]) -> Option<u64> {
        if inputs.len() > PATTERNS.len() || self.variables().iter().any(|v| !inputs.contains(v)) {
            return None;
        }
        let mut words = vec![
            0u64;
            inputs
                .iter()
                .map(|&v| usize::from(v) + 1)
                .max()
                .unwrap_or(0)
        ];
        for (&input, pattern) in inputs.iter().zip(PATTERNS) {
            words[usize::from(input)] = pattern;
        }
        Some(self.eval(&words))
    }
}

/// Bit i of pattern v is bit v of i.
const PATTERNS: [u64; 6] = [
    0xAAAA_AAAA_AAAA_AAAA,
    0xCCCC_CCCC_CCCC_CCCC,
    0xF0F0_F0F0_F0F0_F0F0,
    0xFF00_FF00_FF00_FF00,
    0xFFFF_0000_FFFF_0000,
    0xFFFF_FFFF_0000_0000,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn nand() -> Logic {
        Logic::new(vec![
            Step::Variable(0),
            Step::Variable(2),
            Step::And,
            Step::Not,
        ])
        .expect("it is well formed")
    }

    #[test]
    fn a_truth_table_has_the_inputs_in_the_order_asked_for() {
        let and_not = Logic::new(vec![
            Step::Variable(0),
            Step::Variable(2),
            Step::Not,
            Step::And,
        ])
        .expect("it is well formed");
        assert_eq!(nand().truth(&[0, 2]).map(|t| t & 0xF), Some(0b0111));
        assert_eq!(and_not.truth(&[0, 2]).map(|t| t & 0xF), Some(0b0010));
        assert_eq!(and_not.truth(&[2, 0]).map(|t| t & 0xF), Some(0b0100));
        assert_eq!(nand().truth(&[0, 1]), None);
        assert_eq!(nand().variables(), [0, 2]);
    }

    #[test]
    fn all_assignments_are_evaluated_at_once() {
        assert_eq!(nand().eval(&[0b1100, 0, 0b1010]), !0b1000);
        let buffered = nand()
            .substituted(2, &nand())
            .expect("it is not nested deeply");
        assert_eq!(buffered.eval(&[0b1100, 0, 0b1010]), !(0b1100 & !0b1000));
    }

    #[test]
    fn steps_that_are_no_function_are_refused() {
        for steps in [
            vec![],
            vec![Step::And],
            vec![Step::Not],
            vec![Step::Constant(true), Step::Constant(true)],
            vec![Step::Constant(true); DEPTH + 1],
        ] {
            assert_eq!(Logic::new(steps), None);
        }
    }
}
