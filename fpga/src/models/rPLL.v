// Model of Gowin's phase-locked loop for simulation: rPLL.
//
// It passes the clock on as it is, whatever the dividers are set to, and raises the lock after 20 cycles. So a simulation that clocks the input
// counts cycles of the device's own clock. What it doesn't model: frequencies, phases, jitter, and a lock that is lost.
`default_nettype none

module rPLL #(
  /* verilator lint_off UNUSED */
  parameter FCLKIN = "27",
  parameter DEVICE = "GW1NR-9C",
  parameter IDIV_SEL = 0,
  parameter FBDIV_SEL = 0,
  parameter ODIV_SEL = 8
  /* verilator lint_on UNUSED */
) (
  input  wire CLKIN,
  /* verilator lint_off UNUSED */
  input  wire CLKFB,
  input  wire RESET_P,
  input  wire [5:0] FBDSEL,
  input  wire [5:0] IDSEL,
  input  wire [5:0] ODSEL,
  input  wire [3:0] PSDA,
  input  wire [3:0] DUTYDA,
  input  wire [3:0] FDLY,
  /* verilator lint_on UNUSED */
  input  wire RESET,
  output wire CLKOUT,
  output wire LOCK
);
  reg [4:0] age = 5'd0;

  assign CLKOUT = CLKIN;
  assign LOCK = (age == 5'd20);

  always @(posedge CLKIN) begin
    if (RESET) age <= 5'd0;
    else if (age != 5'd20) age <= age + 5'd1;
  end
endmodule

`default_nettype wire
