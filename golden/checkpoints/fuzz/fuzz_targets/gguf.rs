//! A GGUF file of anybody's: its tensors in every way that they can be read, its configuration.
#![no_main]

use std::path::Path;

use checkpoints::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(checkpoint) = Checkpoint::parse(Path::new("fuzz"), data.into()) else {
        return;
    };
    for info in checkpoint.tensors() {
        let rows = info.rows();
        let values = checkpoint.read_rows(&info.name, 0..rows);
        if let Ok(values) = &values {
            assert_eq!(values.len(), rows * info.width());
            let half = checkpoint
                .read_rows(&info.name, rows / 2..rows)
                .expect("all were read");
            let tail = &values[rows / 2 * info.width()..];
            assert!(
                half.iter()
                    .zip(tail)
                    .all(|(a, b)| a.to_bits() == b.to_bits())
            );
        }
        let _ = checkpoint.read_packed(&info.name);
    }
    let _ = checkpoint.to_tensor_file();
});
