//! Jobs of other programs, as many at a time as there are processors.

use std::sync::Mutex;

/// The results of `job` on every item, in the items' order.
pub fn map<T: Sync, R: Send>(items: &[T], job: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(items.len()));
    let queue = Mutex::new(items.iter().enumerate());
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // A function of its own, so that the lock is not held during the job.
                let next = || queue.lock().ok().and_then(|mut items| items.next());
                while let Some((index, item)) = next() {
                    let result = job(item);
                    if let Ok(mut results) = results.lock() {
                        results.push((index, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_the_order_of_the_items() {
        let squares = super::map(&[3, 1, 2], |n| n * n);
        assert_eq!(squares, [9, 1, 4]);
        assert!(super::map(&[], |n: &u8| *n).is_empty());
    }
}
