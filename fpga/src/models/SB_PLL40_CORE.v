// Model of iCE40's phase-locked loop for simulation: SB_PLL40_CORE.
//
// It passes the clock on as it is, whatever the dividers are set to, and raises the lock after 20 cycles. So a simulation that clocks the input
// counts cycles of the device's own clock. What it doesn't model: frequencies, phases, jitter, and a lock that is lost.
`default_nettype none

module SB_PLL40_CORE #(
  /* verilator lint_off UNUSED */
  parameter FEEDBACK_PATH = "SIMPLE",
  parameter PLLOUT_SELECT = "GENCLK",
  parameter [3:0] DIVR = 4'd0,
  parameter [6:0] DIVF = 7'd0,
  parameter [2:0] DIVQ = 3'd0,
  parameter [2:0] FILTER_RANGE = 3'd0
  /* verilator lint_on UNUSED */
) (
  input  wire REFERENCECLK,
  input  wire RESETB,
  input  wire BYPASS,
  output wire PLLOUTGLOBAL,
  output wire LOCK
);
  reg [4:0] age = 5'd0;

  assign PLLOUTGLOBAL = REFERENCECLK;
  assign LOCK = BYPASS | (age == 5'd20);

  always @(posedge REFERENCECLK) begin
    if (!RESETB) age <= 5'd0;
    else if (age != 5'd20) age <= age + 5'd1;
  end
endmodule

`default_nettype wire
