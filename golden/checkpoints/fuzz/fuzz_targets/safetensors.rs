//! A safetensors file of anybody's: as a plain file, and as a checkpoint whose weights are joined with their scales.
#![no_main]

use std::path::Path;

use checkpoints::Checkpoint;
use golden::tensors::TensorFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("fuzz");
    let plain = TensorFile::parse(path, data);
    if let Ok(file) = &plain {
        // What is read can be written, and is the same again.
        let bytes = file.to_bytes().expect("it was read");
        assert_eq!(
            TensorFile::parse(path, &bytes).expect("it was written"),
            *file
        );
    }
    let Ok(checkpoint) = Checkpoint::parse(path, data.into()) else {
        return;
    };
    for info in checkpoint.tensors() {
        let rows = info.rows();
        if let Ok(values) = checkpoint.read_rows(&info.name, 0..rows) {
            assert_eq!(values.len(), rows * info.width());
        }
        if let Ok(Some(packed)) = checkpoint.read_packed(&info.name) {
            let values = checkpoint
                .read_rows(&info.name, 0..rows)
                .expect("its codes are right");
            assert_eq!(packed.decode(), values);
        }
    }
    let _ = checkpoint.to_tensor_file();
});
