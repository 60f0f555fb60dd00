//! The module around the engine on a board.

use std::fmt::Write as _;

use crate::{Active, Board, Pin};

/// Name of the engine's module, which the top holds once: ports `clock`, `reset`, `rx`, `tx`, `ok`, `busy`, `fault`, one bit each.
pub const ENGINE: &str = "fgmp_board";

/// Cycles that the engine stays in reset after the clock is steady, less one. Block memories of iCE40 give wrong words in the first microseconds after
/// configuration.
const RESET_CYCLES: u32 = 255;

/// The top module of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Its name, `fgmp_ulx3s_85f_top`.
    pub name: String,
    /// Its Verilog: one module, which needs [`ENGINE`] and, where the board has a loop, its primitive.
    pub verilog: String,
    /// Its ports and what pins they go to: `clk`, `rx`, `tx`, and where the board has them `button`, `led_ok`, `led_busy`, `led_fault`, `hold_0`, ….
    pub ports: Vec<(String, Pin)>,
}

impl Top {
    /// The constraint file that places the ports.
    ///
    /// # Errors
    /// As [`Board::constraints`]; ports of a top have places on its board.
    pub fn constraints(&self, board: &Board) -> Result<String, crate::ConstraintError> {
        let ports: Vec<(&str, Pin)> = self
            .ports
            .iter()
            .map(|(name, role)| (name.as_str(), *role))
            .collect();
        board.constraints(&ports)
    }
}

impl Board {
    /// The module that stands between pins and engine: the loop that makes the clock, a reset that ends when the clock is steady, and the pins' levels.
    #[must_use]
    pub fn top(&self) -> Top {
        let name = format!("fgmp_{}_top", self.name.replace('-', "_"));
        let mut ports = vec![
            ("clk".to_owned(), Pin::Clock),
            ("rx".to_owned(), Pin::UartRx),
            ("tx".to_owned(), Pin::UartTx),
        ];
        let mut declarations = vec![
            ("input ", "clk".to_owned(), format!("{} Hz", self.clock_hz)),
            (
                "input ",
                "rx".to_owned(),
                "serial data from the host".to_owned(),
            ),
            (
                "output",
                "tx".to_owned(),
                "serial data to the host".to_owned(),
            ),
        ];
        let mut body = String::new();
        // Writing to a String can't fail.
        let _ = writeln!(body, "  wire clock; // {} Hz", self.system_hz());
        match self.pll {
            Some(pll) => {
                body += "  wire locked;\n";
                body += &pll.instance("clk");
            }
            None => {
                body += "  assign clock = clk;\n";
                body += "  wire locked = 1'b1;\n";
            }
        }
        let level = |active: Active| match active {
            Active::High => "",
            Active::Low => "~",
        };
        let ready = match self.pin(Pin::Button(0)) {
            Some(pin) => {
                ports.push(("button".to_owned(), pin.role));
                declarations.push((
                    "input ",
                    "button".to_owned(),
                    format!("{}: reset while pressed", pin.label),
                ));
                let pressed = level(pin.active);
                format!("locked & ~{pressed}button")
            }
            None => "locked".to_owned(),
        };
        let ready = ready.replace("~~", "");
        let _ = write!(
            body,
            "\n  // The engine is in reset until the clock has been steady for {cycles} cycles: memories aren't ready at once.\n  \
             wire ready = {ready};\n  \
             reg [1:0] steady = 2'b00;\n  \
             reg [7:0] age = 8'd0;\n  \
             reg reset = 1'b1;\n\n  \
             always @(posedge clock) begin\n    \
               steady <= {{steady[0], ready}};\n    \
               if (!steady[1]) age <= 8'd0;\n    \
               else if (age != 8'd{last}) age <= age + 8'd1;\n    \
               reset <= (age != 8'd{last});\n  \
             end\n\n",
            cycles = RESET_CYCLES + 1,
            last = RESET_CYCLES
        );
        let mut wires = Vec::new();
        let mut unused = Vec::new();
        let mut assigns = String::new();
        for (signal, light, meaning) in [
            ("ok", self.status.ok, "a session is open"),
            ("busy", self.status.busy, "computing"),
            ("fault", self.status.fault, "a damaged frame came lately"),
        ] {
            wires.push(signal);
            let Some(pin) = light.and_then(|role| self.pin(role)) else {
                unused.push(signal);
                continue;
            };
            let port = format!("led_{signal}");
            ports.push((port.clone(), pin.role));
            let _ = writeln!(assigns, "  assign {port} = {}{signal};", level(pin.active));
            declarations.push(("output", port, format!("{}: {meaning}", pin.label)));
        }
        let held = self
            .pins
            .iter()
            .filter(|pin| matches!(pin.role, Pin::Hold(_)));
        for (number, pin) in held.enumerate() {
            let port = format!("hold_{number}");
            let bit = u8::from(pin.active == Active::High);
            let _ = writeln!(assigns, "  assign {port} = 1'b{bit};");
            ports.push((port.clone(), pin.role));
            declarations.push(("output", port, format!("{}: stays at {bit}", pin.label)));
        }
        let _ = writeln!(body, "  wire {};\n", wires.join(", "));
        let _ = write!(
            body,
            "  {ENGINE} engine (\n    .clock(clock),\n    .reset(reset),\n    .rx(rx),\n    .tx(tx),\n    .ok(ok),\n    .busy(busy),\n    .fault(fault)\n  );\n\n"
        );
        body += &assigns;
        if !unused.is_empty() {
            let _ = write!(
                body,
                "\n  // The board has no light for it.\n  /* verilator lint_off UNUSED */\n  wire unused = &{{{}, 1'b0}};\n  /* verilator lint_on UNUSED */\n",
                unused.join(", ")
            );
        }
        let mut verilog = format!(
            "// {}: {} on {}, {}.\n`default_nettype none\n\nmodule {name} (\n",
            name, ENGINE, self.title, self.part
        );
        for (index, (direction, port, comment)) in declarations.iter().enumerate() {
            let comma = if index + 1 < declarations.len() {
                ","
            } else {
                ""
            };
            let _ = writeln!(verilog, "  {direction} wire {port}{comma} // {comment}");
        }
        let _ = write!(verilog, ");\n{body}endmodule\n\n`default_nettype wire\n");
        Top {
            name,
            verilog,
            ports,
        }
    }
}
