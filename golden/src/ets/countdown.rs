//! The Countdown task: use every number once with + − × ÷ to reach a target.
//!
//! A problem is `2 12 13 16 16:188`, a step `13*16=208;2 12 16 208`: an operation, its result, and the numbers that are left, sorted. Results are whole and from 1 to 999. All of it can be checked exactly,
//! which no search does: checks are for those who judge searches.

use std::fmt;
use std::str::FromStr;

use super::live::{Ending, Task};
use super::{Lambda, LambdaError, NodePrice, Prices};

/// Characters of the vocabulary; token 1 is the first. Token 0 is padding.
pub const CHARACTERS: &str = "0123456789+-*/=;: \n$";

/// Largest number, of problems and results.
pub const LARGEST: u32 = 999;

/// Most numbers of a problem: what fits the models' context with all steps.
pub const MOST_NUMBERS: usize = 5;

/// Numbers and what they are to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    numbers: Vec<u32>,
    target: u32,
}

/// A text that is no problem.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProblemError {
    /// Not of the form.
    #[error("expected numbers, a colon and a target, like `2 12 13 16 16:188`; found `{0}`")]
    Form(String),
    /// Too few or too many numbers.
    #[error("expected 2 to {MOST_NUMBERS} numbers, found {0}")]
    Count(usize),
    /// Out of range.
    #[error("numbers and target are from 1 to {LARGEST}; found {0}")]
    Range(u64),
}

impl FromStr for Problem {
    type Err = ProblemError;

    fn from_str(text: &str) -> Result<Self, ProblemError> {
        let form = || ProblemError::Form(text.trim().chars().take(60).collect());
        let (numbers, target) = text.trim().split_once(':').ok_or_else(form)?;
        let number = |text: &str| -> Result<u32, ProblemError> {
            let number: u64 = text.trim().parse().map_err(|_| form())?;
            u32::try_from(number)
                .ok()
                .filter(|number| (1..=LARGEST).contains(number))
                .ok_or(ProblemError::Range(number))
        };
        let numbers = numbers
            .split_whitespace()
            .map(number)
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(numbers, number(target)?)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", list(&self.numbers), self.target)
    }
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    numbers.join(" ")
}

impl Problem {
    /// A problem; its numbers are sorted.
    ///
    /// # Errors
    /// Too few or too many numbers, or one is out of range.
    pub fn new(mut numbers: Vec<u32>, target: u32) -> Result<Self, ProblemError> {
        if !(2..=MOST_NUMBERS).contains(&numbers.len()) {
            return Err(ProblemError::Count(numbers.len()));
        }
        if let Some(&wrong) = numbers
            .iter()
            .chain([&target])
            .find(|number| !(1..=LARGEST).contains(*number))
        {
            return Err(ProblemError::Range(u64::from(wrong)));
        }
        numbers.sort_unstable();
        Ok(Self { numbers, target })
    }

    /// The numbers, sorted.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// What they are to make.
    pub const fn target(&self) -> u32 {
        self.target
    }

    /// Whether the models have seen its like: five numbers up to 20, a target from 10 to 200.
    pub fn is_like_the_trained_ones(&self) -> bool {
        self.numbers.len() == 5
            && self.numbers.iter().all(|&number| number <= 20)
            && (10..=200).contains(&self.target)
    }

    /// The prompt.
    pub fn tokens(&self) -> Vec<u32> {
        encode(&format!("{self}\n"))
    }

    /// Whether steps lead from the problem's numbers to the target without a fault.
    pub fn is_solved_by<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> bool {
        let mut numbers = self.numbers.clone();
        for text in steps {
            match Step::from_str(text)
                .ok()
                .and_then(|step| step.apply(&numbers))
            {
                Some(rest) => numbers = rest,
                None => return false,
            }
        }
        numbers == [self.target]
    }

    /// Whether the target can be reached at all from these numbers, each used once.
    pub fn is_reachable_from(&self, numbers: &[u32]) -> bool {
        reachable(numbers, self.target)
    }
}

/// Tokens of a text; characters that the vocabulary doesn't have become padding.
pub fn encode(text: &str) -> Vec<u32> {
    text.chars()
        .map(|character| {
            CHARACTERS
                .chars()
                .position(|other| other == character)
                .map_or(0, |place| place as u32 + 1)
        })
        .collect()
}

/// The text of tokens; what is no character becomes a question mark.
pub fn decode(tokens: &[u32]) -> String {
    tokens
        .iter()
        .map(|&token| {
            (token as usize)
                .checked_sub(1)
                .and_then(|place| CHARACTERS.chars().nth(place))
                .unwrap_or('?')
        })
        .collect()
}

/// A step as its text says, right or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Left operand.
    pub left: u32,
    /// `+`, `-`, `*` or `/`.
    pub operation: char,
    /// Right operand.
    pub right: u32,
    /// What is said to come out.
    pub result: u32,
    /// The numbers that are said to be left.
    pub rest: Vec<u32>,
}

/// A text that is no step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not of the form `13*16=208;2 12 16 208`")]
pub struct StepError;

impl FromStr for Step {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        let (equation, rest) = text.trim().split_once(';').ok_or(StepError)?;
        let (term, result) = equation.split_once('=').ok_or(StepError)?;
        let place = term
            .find(|character: char| "+-*/".contains(character))
            .ok_or(StepError)?;
        let number = |text: &str| -> Result<u32, StepError> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().ok_or(StepError)
        };
        Ok(Self {
            left: number(&term[..place])?,
            operation: term[place..].chars().next().ok_or(StepError)?,
            right: number(&term[place + 1..])?,
            result: number(result)?,
            rest: rest.split(' ').map(number).collect::<Result<_, _>>()?,
        })
    }
}

impl Step {
    /// The numbers that are left if the step is taken, sorted. Nothing if it is wrong: a number that isn't there, a result that is false or out of bounds, or a rest that doesn't follow.
    pub fn apply(&self, numbers: &[u32]) -> Option<Vec<u32>> {
        let mut left = numbers.to_vec();
        for used in [self.left, self.right] {
            let place = left.iter().position(|&number| number == used)?;
            left.remove(place);
        }
        let result = compute(self.left, self.operation, self.right)?;
        left.push(result);
        left.sort_unstable();
        let mut said = self.rest.clone();
        said.sort_unstable();
        (result == self.result && said == left).then_some(left)
    }
}

/// A result within bounds.
fn compute(left: u32, operation: char, right: u32) -> Option<u32> {
    let result = match operation {
        '+' => left.checked_add(right)?,
        '-' => left.checked_sub(right)?,
        '*' => left.checked_mul(right)?,
        '/' if right > 0 && left.is_multiple_of(right) => left / right,
        _ => return None,
    };
    (1..=LARGEST).contains(&result).then_some(result)
}

fn reachable(numbers: &[u32], target: u32) -> bool {
    if let [number] = numbers {
        return *number == target;
    }
    for first in 0..numbers.len() {
        for second in 0..numbers.len() {
            if first == second {
                continue;
            }
            let rest: Vec<u32> = (0..numbers.len())
                .filter(|&place| place != first && place != second)
                .map(|place| numbers[place])
                .collect();
            for operation in ['+', '-', '*', '/'] {
                // The other order of a sum or product comes to the same.
                if second < first && "+*".contains(operation) {
                    continue;
                }
                if let Some(result) = compute(numbers[first], operation, numbers[second]) {
                    let mut next = rest.clone();
                    next.push(result);
                    if reachable(&next, target) {
                        return true;
                    }
                }
            }
        }
    }
    false
}

/// The task as a search sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Countdown {
    target: u32,
}

impl Countdown {
    /// The task of a problem.
    pub const fn of(problem: &Problem) -> Self {
        Self {
            target: problem.target,
        }
    }
}

impl Task for Countdown {
    fn ends_step(&self, step: &[u32]) -> bool {
        decode(step).ends_with(['\n', '$'])
    }

    /// A step that leaves the target alone answers, right or not; one that leaves another number alone, or `$` before that, gives up.
    fn ending(&self, step: &[u32]) -> Ending {
        let text = decode(step);
        if text.contains('$') {
            return Ending::GivesUp;
        }
        match Step::from_str(&text).map(|step| step.rest) {
            Ok(rest) if rest == [self.target] => Ending::Answers,
            Ok(rest) if rest.len() == 1 => Ending::GivesUp,
            _ => Ending::Continues,
        }
    }

    /// Its numbers were left, its result is right and within bounds, and what it leaves follows.
    fn follows(&self, before: &str, step: &str) -> bool {
        let left = match before.split_once(';') {
            Some((_, rest)) => rest,
            None => before.split(':').next().unwrap_or(before),
        };
        let numbers: Result<Vec<u32>, _> = left.split_whitespace().map(str::parse).collect();
        let step = Step::from_str(step);
        matches!((numbers, step), (Ok(numbers), Ok(step)) if step.apply(&numbers).is_some())
    }

    /// The expression that the operations make, operands of sums and products in order: the same however its steps follow one another, and whatever they say comes out.
    fn answer(&self, steps: &[String]) -> String {
        let mut parts: Vec<(u32, String)> = Vec::new();
        let mut last = String::new();
        for text in steps {
            let Ok(step) = Step::from_str(text) else {
                return steps.concat();
            };
            let mut operand = |number: u32| {
                let made = parts.iter().position(|(result, _)| *result == number);
                made.map_or_else(|| number.to_string(), |place| parts.remove(place).1)
            };
            let mut operands = [operand(step.left), operand(step.right)];
            if "+*".contains(step.operation) {
                operands.sort_unstable();
            }
            let [left, right] = operands;
            last = format!("({left}{}{right})", step.operation);
            parts.push((step.result, last.clone()));
        }
        last
    }

    fn text(&self, tokens: &[u32]) -> String {
        decode(tokens)
    }
}

/// Distance up to which two steps say the same, of the vectors of the reward model that comes with the project: `docs/tree-search.md` says how it was chosen. The published
/// [`CUT`](super::CUT) belongs to another model; here it would hold steps together that reach different numbers.
pub const CUT: f64 = 0.02;

/// Prices chosen on [`problems`] other than those that searches are measured on: `docs/tree-search.md` says how.
///
/// # Errors
/// Never: they are in range.
pub fn prices(width: u32) -> Result<Prices, LambdaError> {
    let (budget, diversity) = match width {
        0..32 => (1.5, 2.0),
        _ => (4.0, 3.0),
    };
    Ok(Prices {
        budget: Lambda::new(budget)?,
        diversity: Lambda::new(diversity)?,
        node: NodePrice::Nodes,
    })
}

/// Problems drawn like the trained ones: numbers at random, then random operations until one number is left, which is the target. A problem of `except` never comes.
pub fn problems(count: usize, seed: u64, except: &[Problem]) -> Vec<Problem> {
    let mut state = seed;
    let mut draw = |from: u32, to: u32| {
        state = crate::speed::mix(state, 1);
        from + (state >> 33) as u32 % (to - from + 1)
    };
    let mut found: Vec<Problem> = Vec::new();
    while found.len() < count {
        let numbers: Vec<u32> = (0..5).map(|_| draw(1, 20)).collect();
        let mut left = numbers.clone();
        while left.len() > 1 {
            let [first, second] =
                [0, 0].map(|_| left.swap_remove(draw(0, left.len() as u32 - 1) as usize));
            let operation = ['+', '-', '*', '/'][draw(0, 3) as usize];
            match compute(first, operation, second) {
                Some(result) => left.push(result),
                None => left.extend([first, second]),
            }
        }
        if let Ok(problem) = Problem::new(numbers, left[0])
            && problem.is_like_the_trained_ones()
            && !except.contains(&problem)
            && !found.contains(&problem)
        {
            found.push(problem);
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn problems_are_read_and_written() {
        let problem: Problem = "16 2 12 13 16:188\n".parse().unwrap();
        assert_eq!(problem.to_string(), "2 12 13 16 16:188");
        assert_eq!(decode(&problem.tokens()), "2 12 13 16 16:188\n");
        assert!(problem.is_like_the_trained_ones());
        for (text, message) in [
            (
                "",
                "expected numbers, a colon and a target, like `2 12 13 16 16:188`; found ``",
            ),
            (
                "1 2 3",
                "expected numbers, a colon and a target, like `2 12 13 16 16:188`; found `1 2 3`",
            ),
            (
                "1 x:3",
                "expected numbers, a colon and a target, like `2 12 13 16 16:188`; found `1 x:3`",
            ),
            ("1:3", "expected 2 to 5 numbers, found 1"),
            ("1 2 3 4 5 6:3", "expected 2 to 5 numbers, found 6"),
            ("1 0:3", "numbers and target are from 1 to 999; found 0"),
            (
                "1 2:1000",
                "numbers and target are from 1 to 999; found 1000",
            ),
        ] {
            assert_eq!(text.parse::<Problem>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn steps_are_checked() {
        let problem: Problem = "2 12 13 16 16:188".parse().unwrap();
        let right = [
            "16*13=208;2 12 16 208\n",
            "208-12=196;2 16 196\n",
            "196-16=180;2 180\n",
        ];
        assert!(!problem.is_solved_by(right));
        let last = |step| right.into_iter().chain([step]).collect::<Vec<_>>();
        assert!(!problem.is_solved_by(last("2+180=188;188\n")));
        assert!(!problem.is_solved_by(last("2+180=182;182\n")));
        let solution = [
            "16*13=208;2 12 16 208",
            "208-16=192;2 12 192",
            "12/2=6;6 192",
            "192-6=186;186",
        ];
        assert!(!problem.is_solved_by(solution));
        let problem: Problem = "2 12 13 16 16:186".parse().unwrap();
        assert!(problem.is_solved_by(solution));
        let numbers = [2, 12, 13, 16, 16];
        for wrong in [
            "16*16=256;2 12 13 255",
            "16*3=48;2 12 13 16 48",
            "2-12=0;0 13 16 16",
            "13/2=6;6 12 16 16",
            "16*13=208;2 12 208",
        ] {
            assert_eq!(
                wrong.parse::<Step>().unwrap().apply(&numbers),
                None,
                "{wrong}"
            );
        }
        for wrong in [
            "",
            "1+2",
            "1+2=3",
            "+1=2;3",
            "1+2=3;",
            "1+2=3;4  5",
            "é+1=2;3",
            "1+-2=3;4",
        ] {
            assert!(wrong.parse::<Step>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn drawn_problems_can_be_solved_and_are_others() {
        let first = problems(20, 5, &[]);
        assert_eq!(first, problems(20, 5, &[]));
        let second = problems(20, 5, &first[..10]);
        assert!(first[..10].iter().all(|problem| !second.contains(problem)));
        assert!(
            second
                .iter()
                .all(|problem| problem.is_like_the_trained_ones())
        );
        assert!(!first[0].is_reachable_from(&[1, 1]));
    }

    #[test]
    fn endings_and_answers() {
        let task = Countdown { target: 182 };
        let ending = |text: &str| task.ending(&encode(text));
        assert_eq!(ending("2+180=182;182\n"), Ending::Answers);
        assert_eq!(ending("2+180=183;183\n"), Ending::GivesUp);
        assert_eq!(ending("196-16=180;2 180\n"), Ending::Continues);
        assert_eq!(ending("nonsense\n"), Ending::Continues);
        assert_eq!(ending("$"), Ending::GivesUp);
        assert!(task.ends_step(&encode("2\n")) && !task.ends_step(&[1, 0]));
        let answer = |steps: &[&str]| {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            task.answer(&steps)
        };
        assert!(task.follows("2 12 13 16 16:188\n", "16*13=208;2 12 16 208\n"));
        assert!(task.follows("16*13=208;2 12 16 208\n", "16/2=8;8 12 208\n"));
        assert!(!task.follows("16*13=208;2 12 16 208\n", "16/2=9;9 12 208\n"));
        assert!(!task.follows("16*13=208;2 12 16 208\n", "16/2=8;12 208\n"));
        assert!(!task.follows("nonsense", "16/2=8;12 208\n"));
        // The same in another order, the operands exchanged.
        let one = answer(&["2*3=6;4 5 6", "4+5=9;6 9", "9-6=3;3"]);
        let other = answer(&["5+4=9;2 3 9", "3*2=6;6 9", "9-6=3;3"]);
        assert_eq!((one.as_str(), &one), ("((4+5)-(2*3))", &other));
        assert_eq!(answer(&["x\n", "1+2=3;3\n"]), "x\n1+2=3;3\n");
    }
}
