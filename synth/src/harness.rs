//! The frame in which a module is measured.
//!
//! A shift register of one bit a cycle holds the module's inputs, a register takes its outputs, and the parity of that
//! register is the only output. So every path of interest runs from register to register, a module of any width fits into any
//! package, and no output can be optimised away.

use std::fmt::Write;

use hdl::emit::{Direction, Module};

/// Name of the harness's module.
pub const TOP: &str = "fgmp_harness";

/// The name of the port that is the clock; every other input comes from the shift register.
const CLOCK: &str = "clock";

/// A module in its harness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harness {
    /// Verilog of the harness alone; its top is [`TOP`].
    pub text: String,
    /// Input bits of the module, without the clock.
    pub inputs: usize,
    /// Output bits of the module.
    pub outputs: usize,
}

impl Harness {
    /// The harness of a module.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        let mut connections = String::new();
        let (mut inputs, mut outputs) = (0, 0);
        for port in &module.ports {
            let (bus, at) = match port.direction {
                Direction::Input if port.name == CLOCK => {
                    let _ = write!(connections, "\n    .{CLOCK}({CLOCK}),");
                    continue;
                }
                Direction::Input => ("operands", &mut inputs),
                Direction::Output => ("outputs", &mut outputs),
            };
            // Writing to a string can't fail.
            let _ = write!(
                connections,
                "\n    .{}({bus}[{}:{at}]),",
                port.name,
                *at + port.width - 1
            );
            *at += port.width;
        }
        let text = format!(
            "module {TOP} (input wire clock, input wire serial, output reg parity);
  reg [{operands}:0] operands;
  wire [{results}:0] outputs;
  reg [{results}:0] results;
  always @(posedge clock) begin
    operands <= {{operands[{shifted}:0], serial}};
    results <= outputs;
    parity <= ^results;
  end
  {} dut ({}
  );
endmodule
",
            module.name,
            connections.trim_end_matches(','),
            operands = inputs.max(2) - 1,
            shifted = inputs.max(2) - 2,
            results = outputs.max(1) - 1,
        );
        Self {
            text,
            inputs,
            outputs,
        }
    }

    /// LUT4 that the harness itself takes: those of the parity, a tree of exclusive ors of four.
    #[must_use]
    pub fn lut4(&self) -> u64 {
        (self.outputs.max(1) as u64 - 1).div_ceil(3)
    }

    /// Registers that the harness itself takes.
    #[must_use]
    pub fn registers(&self) -> u64 {
        (self.inputs.max(2) + self.outputs.max(1) + 1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdl::emit::Port;

    #[test]
    fn every_port_has_its_place() {
        let port = |name: &str, width, direction| Port {
            name: name.to_owned(),
            width,
            direction,
        };
        let module = Module {
            name: "adder".to_owned(),
            source: String::new(),
            ports: vec![
                port("clock", 1, Direction::Input),
                port("a", 8, Direction::Input),
                port("b", 8, Direction::Input),
                port("sum", 9, Direction::Output),
            ],
            instances: Vec::new(),
            parameters: Vec::new(),
            doc: String::new(),
        };
        let harness = Harness::of(&module);
        assert_eq!((harness.inputs, harness.outputs), (16, 9));
        assert_eq!((harness.lut4(), harness.registers()), (3, 26));
        for connection in [
            ".clock(clock)",
            ".a(operands[7:0])",
            ".b(operands[15:8])",
            ".sum(outputs[8:0])",
        ] {
            assert!(harness.text.contains(connection), "{}", harness.text);
        }
    }
}
