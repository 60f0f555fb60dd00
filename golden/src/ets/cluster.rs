//! Which steps say the same: agglomerative clustering of their embeddings.

use kodama::{Method, linkage};

/// Distance up to which steps are one cluster, of the published runs.
pub const CUT: f64 = 0.05;

/// Embeddings that can't be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClusterError {
    /// Another number of dimensions than the first.
    #[error("embedding {index} has {found} dimensions, the first has {expected}")]
    Dimensions {
        /// Which embedding.
        index: usize,
        /// Its dimensions.
        found: usize,
        /// Those of the first.
        expected: usize,
    },
    /// NaN or infinite.
    #[error("embedding {0} holds a number that is not finite")]
    NotFinite(usize),
    /// NaN, or negative.
    #[error("the cut must be a distance from 0 up")]
    Cut,
}

/// Clusters of embeddings by average linkage of cosine distances, cut at distance `cut`: labels from 0, in the order in which clusters first appear.
///
/// The distance is 1 − u·v / (|u| |v|) in float64, kept within 0 to 2. An embedding of zeros has no direction: its distance is 0 to another of zeros and 1 to any other.
///
/// # Errors
/// Embeddings differ in length or hold a number that isn't finite, or the cut isn't a distance.
pub fn cluster<E: AsRef<[f32]>>(embeddings: &[E], cut: f64) -> Result<Vec<u32>, ClusterError> {
    if cut.is_nan() || cut < 0.0 {
        return Err(ClusterError::Cut);
    }
    let expected = embeddings.first().map_or(0, |first| first.as_ref().len());
    let mut unit: Vec<Option<Vec<f64>>> = Vec::with_capacity(embeddings.len());
    for (index, embedding) in embeddings.iter().enumerate() {
        let embedding = embedding.as_ref();
        let found = embedding.len();
        if found != expected {
            return Err(ClusterError::Dimensions {
                index,
                found,
                expected,
            });
        }
        if !embedding.iter().all(|value| value.is_finite()) {
            return Err(ClusterError::NotFinite(index));
        }
        // Squares of float32 stay within float64, the small ones too.
        let norm = embedding
            .iter()
            .map(|&value| f64::from(value).powi(2))
            .sum::<f64>()
            .sqrt();
        unit.push((norm > 0.0).then(|| {
            embedding
                .iter()
                .map(|&value| f64::from(value) / norm)
                .collect()
        }));
    }
    let count = unit.len();
    let mut joined = Joined::new(count);
    if count > 1 {
        let mut distances = Vec::with_capacity(count * (count - 1) / 2);
        for (index, one) in unit.iter().enumerate() {
            for other in &unit[index + 1..] {
                distances.push(distance(one.as_deref(), other.as_deref()));
            }
        }
        let tree = linkage(&mut distances, count, Method::Average);
        // Rounding may put a merger below those that it merges; it counts as far as they do.
        let mut reach = vec![0f64; count];
        let mut member: Vec<usize> = (0..count).collect();
        for step in tree.steps() {
            let far = step
                .dissimilarity
                .max(reach[step.cluster1])
                .max(reach[step.cluster2]);
            reach.push(far);
            member.push(member[step.cluster1]);
            if far <= cut {
                joined.join(member[step.cluster1], member[step.cluster2]);
            }
        }
    }
    Ok(joined.labels())
}

/// Whether the published search asks for clusters at all: of more than one leaf whose steps aren't all the same text.
pub fn worth_clustering<T: AsRef<str>>(steps: &[T]) -> bool {
    steps
        .split_first()
        .is_some_and(|(first, rest)| rest.iter().any(|step| step.as_ref() != first.as_ref()))
}

fn distance(one: Option<&[f64]>, other: Option<&[f64]>) -> f64 {
    match (one, other) {
        (Some(one), Some(other)) => {
            let product: f64 = one.iter().zip(other).map(|(a, b)| a * b).sum();
            (1.0 - product).clamp(0.0, 2.0)
        }
        (None, None) => 0.0,
        _ => 1.0,
    }
}

/// Sets that are joined.
pub(super) struct Joined(Vec<usize>);

impl Joined {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    pub(super) fn first(&mut self, mut member: usize) -> usize {
        while self.0[member] != member {
            self.0[member] = self.0[self.0[member]];
            member = self.0[member];
        }
        member
    }

    pub(super) fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        self.0[one.max(other)] = one.min(other);
    }

    fn labels(mut self) -> Vec<u32> {
        let mut labels: Vec<u32> = Vec::with_capacity(self.0.len());
        let mut next = 0;
        for member in 0..self.0.len() {
            let first = self.first(member);
            let label = if first == member {
                next += 1;
                next - 1
            } else {
                labels[first]
            };
            labels.push(label);
        }
        labels
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn corner_cases() {
        let none: [[f32; 2]; 0] = [];
        assert_eq!(cluster(&none, CUT).unwrap(), [0u32; 0]);
        assert_eq!(cluster(&[[1.0f32, 2.0]], CUT).unwrap(), [0]);
        assert_eq!(cluster(&[[0.0f32, 0.0]], CUT).unwrap(), [0]);
        // Without a direction: by themselves.
        let zeros = [[0.0f32, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.0]];
        assert_eq!(cluster(&zeros, CUT).unwrap(), [0, 1, 0, 1]);
        let none: [[f32; 0]; 3] = [[]; 3];
        assert_eq!(cluster(&none, CUT).unwrap(), [0; 3]);
        // The largest and smallest numbers don't overflow.
        let extreme = [[f32::MAX, f32::MAX], [1e-45, 1e-45], [f32::MAX, -f32::MAX]];
        assert_eq!(cluster(&extreme, CUT).unwrap(), [0, 0, 1]);
        assert_eq!(
            cluster(&[[1.0, f32::NAN]], CUT),
            Err(ClusterError::NotFinite(0))
        );
        assert_eq!(
            cluster(&[vec![1.0], vec![1.0, 2.0]], CUT),
            Err(ClusterError::Dimensions {
                index: 1,
                found: 2,
                expected: 1
            })
        );
        assert_eq!(cluster(&[[1.0]], f64::NAN), Err(ClusterError::Cut));
    }

    #[test]
    fn average_linkage() {
        // Angles in degrees; distances are 1 − cos.
        let at = |angle: f32| [angle.to_radians().cos(), angle.to_radians().sin()];
        // 1 − cos 18° = 0.0489, 1 − cos 19° = 0.0545.
        assert_eq!(cluster(&[at(0.0), at(18.0)], CUT).unwrap(), [0, 0]);
        assert_eq!(cluster(&[at(0.0), at(19.0)], CUT).unwrap(), [0, 1]);
        // 0° and 10° first; 20.1° is 0.0609 and 0.0155 away from them, 0.0382 on the average. 38° is 0.0484 away from 20.1°, near enough for a single link, but 0.126 on the average.
        let line = [at(0.0), at(10.0), at(20.1), at(38.0)];
        assert_eq!(cluster(&line, CUT).unwrap(), [0, 0, 0, 1]);
    }

    #[test]
    fn texts() {
        assert!(!worth_clustering::<&str>(&[]));
        assert!(!worth_clustering(&["a"]));
        assert!(!worth_clustering(&["a", "a", "a"]));
        assert!(worth_clustering(&["a", "a", "b"]));
    }
}
