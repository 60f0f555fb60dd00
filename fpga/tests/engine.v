// Stands in for the engine in tests of the boards: a memory that serial data is written to and read from, and a counter.
module fgmp_board (
  input  wire clock,
  input  wire reset,
  input  wire rx,
  output reg  tx,
  output reg  ok,
  output reg  busy,
  output reg  fault
);
  reg [23:0] count;
  reg [1:0]  line;
  reg [15:0] memory [0:255];
  reg [15:0] word;

  always @(posedge clock) begin
    line <= {line[0], rx};
    count <= reset ? 0 : count + 24'd1;
    if (line[1]) memory[count[7:0]] <= {count[15:1], line[0]};
    word <= memory[count[15:8]];
    tx <= reset | line[1] | word[3];
    ok <= ~line[1];
    busy <= word[0];
    fault <= count[23];
  end
endmodule
