// Model of ECP5's phase-locked loop for simulation: EHXPLLL.
//
// It passes the clock on as it is, whatever the dividers are set to, and raises the lock after 20 cycles. So a simulation that clocks the input
// counts cycles of the device's own clock. What it doesn't model: frequencies, phases, jitter, and a lock that is lost.
`default_nettype none

module EHXPLLL #(
  /* verilator lint_off UNUSED */
  parameter PLLRST_ENA = "DISABLED",
  parameter INTFB_WAKE = "DISABLED",
  parameter STDBY_ENABLE = "DISABLED",
  parameter DPHASE_SOURCE = "DISABLED",
  parameter OUTDIVIDER_MUXA = "DIVA",
  parameter OUTDIVIDER_MUXB = "DIVB",
  parameter OUTDIVIDER_MUXC = "DIVC",
  parameter OUTDIVIDER_MUXD = "DIVD",
  parameter CLKI_DIV = 1,
  parameter CLKFB_DIV = 1,
  parameter FEEDBK_PATH = "CLKOP",
  parameter CLKOP_ENABLE = "ENABLED",
  parameter CLKOP_DIV = 8,
  parameter CLKOP_CPHASE = 0,
  parameter CLKOP_FPHASE = 0,
  parameter CLKOS_ENABLE = "DISABLED",
  parameter CLKOS_DIV = 8,
  parameter CLKOS_CPHASE = 0,
  parameter CLKOS_FPHASE = 0
  /* verilator lint_on UNUSED */
) (
  input  wire CLKI,
  /* verilator lint_off UNUSED */
  input  wire CLKFB,
  input  wire STDBY,
  input  wire PHASESEL0,
  input  wire PHASESEL1,
  input  wire PHASEDIR,
  input  wire PHASESTEP,
  input  wire PHASELOADREG,
  input  wire PLLWAKESYNC,
  input  wire ENCLKOP,
  input  wire ENCLKOS,
  /* verilator lint_on UNUSED */
  input  wire RST,
  output wire CLKOP,
  output wire CLKOS,
  output wire LOCK
);
  reg [4:0] age = 5'd0;

  assign CLKOP = CLKI;
  assign CLKOS = CLKI;
  assign LOCK = (age == 5'd20);

  always @(posedge CLKI) begin
    if (RST) age <= 5'd0;
    else if (age != 5'd20) age <= age + 5'd1;
  end
endmodule

`default_nettype wire
