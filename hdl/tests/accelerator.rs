//! The complete accelerator: emission and lint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hdl::build::emit_accelerator;
use hdl::config::ArrayConfig;

#[test]
fn the_accelerator_is_lint_clean() {
    let bundle = emit_accelerator(ArrayConfig::default()).unwrap();
    if let Ok(folder) = std::env::var("FGMP_DUMP") {
        bundle.write_rtl(std::path::Path::new(&folder)).unwrap();
    }
    support::assert_lint_clean(&bundle);
}
