//! A packed file of anybody's.
#![no_main]

use std::path::Path;

use golden::packed::PackedFile;
use golden::tensors::TensorFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("fuzz");
    let Ok(file) = TensorFile::parse(path, data) else {
        return;
    };
    let Ok(packed) = PackedFile::from_tensors(file) else {
        return;
    };
    for tensor in packed.packed.values() {
        assert_eq!(tensor.decode().len(), tensor.rows() * tensor.k());
        assert_eq!(tensor.blocks().count(), tensor.block_count());
    }
    let again = packed.to_tensors(path).expect("it was read");
    assert_eq!(
        PackedFile::from_tensors(again).expect("it was written"),
        packed
    );
});
