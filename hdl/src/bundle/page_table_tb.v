// Self-checking testbench of fgmp_page_table: reads tb/*.hex, prints PASS, or FAIL and stops ($stop, exit status 1 of vvp -N).
// Items are taken with pauses that an LFSR chooses.
`timescale 1ns / 1ps

module fgmp_page_table_tb;
  localparam COMMANDS = @COMMANDS@;
  localparam ITEMS = @ITEMS@;
  // Bits of a segment's number and of a page's.
  localparam S = @S@;
  localparam P = @P@;
  localparam PATIENCE = 1 << 16;

  reg clock = 1'b0;
  reg reset = 1'b1;
  always #5 clock = ~clock;
  reg [15:0] lfsr = 16'hACE1;
  always @(posedge clock) lfsr <= {lfsr[14:0], lfsr[15] ^ lfsr[13] ^ lfsr[12] ^ lfsr[10]};

  // Of each command: what is asked, of which segment and generation; then the golden model's status, segment, generation, page and place,
  // how many items it lists, and the pages and segments in use behind it.
  reg [110:0] commands [0:COMMANDS-1];
  // Segments or pages, as listed.
  reg [11:0] items [0:ITEMS-1];
  initial begin
    $readmemh("tb/commands.hex", commands);
    $readmemh("tb/items.hex", items);
  end

  reg command_valid = 1'b0;
  reg [2:0] command = 3'd0;
  reg [11:0] segment = 12'd0;
  reg [7:0] generation = 8'd0;
  reg item_ready = 1'b0;
  wire command_ready;
  wire answer_valid;
  wire [2:0] answer_status;
  wire [S-1:0] answer_segment;
  wire [7:0] answer_generation;
  wire [P-1:0] answer_page;
  wire [7:0] answer_place;
  wire item_valid;
  wire [S-1:0] item_segment;
  wire [P-1:0] item_page;
  wire item_first;
  wire item_last;
  wire [15:0] pages_used;
  wire [15:0] segments_used;

  fgmp_page_table table_of_pages (
    .clock(clock),
    .reset(reset),
    .command_valid(command_valid),
    .command_ready(command_ready),
    .command(command),
    .segment(segment[S-1:0]),
    .generation(generation),
    .answer_valid(answer_valid),
    .answer_status(answer_status),
    .answer_segment(answer_segment),
    .answer_generation(answer_generation),
    .answer_page(answer_page),
    .answer_place(answer_place),
    .item_valid(item_valid),
    .item_ready(item_ready),
    .item_segment(item_segment),
    .item_page(item_page),
    .item_first(item_first),
    .item_last(item_last),
    .pages_used(pages_used),
    .segments_used(segments_used)
  );

  integer errors = 0;
  integer at, i, cycles;
  integer item_at = 0;
  reg [2:0] status;
  reg [11:0] new_segment, page, item;
  reg [7:0] new_generation, place;
  reg [12:0] count;
  reg [15:0] pages, segments;
  reg wrong;

  // The clock's edge, and what follows from it.
  task tick;
    begin
      @(posedge clock);
      #1;
      cycles = cycles + 1;
      if (cycles > PATIENCE) begin
        $display("FAIL fgmp_page_table: hangs in command %0d", at);
        $stop;
        $finish;
      end
    end
  endtask

  initial begin
    cycles = 0;
    at = 0;
    repeat (4) tick;
    reset = 1'b0;
    for (at = 0; at < COMMANDS; at = at + 1) begin
      {command, segment, generation, status, new_segment, new_generation, page, place, count, pages, segments} = commands[at];
      command_valid = 1'b1;
      cycles = 0;
      #1;
      while (command_ready !== 1'b1) tick;
      tick;
      command_valid = 1'b0;
      i = 0;
      item_ready = lfsr[0] || lfsr[5];
      #1;
      while (answer_valid !== 1'b1) begin
        if (item_valid === 1'b1 && item_ready) begin
          item = i < count ? items[item_at + i] : 12'hfff;
          wrong = i >= count || item_first !== (i == 0) || item_last !== (i + 1 == count);
          // Command 5 lists segments, command 6 pages.
          if (command == 3'd5) wrong = wrong || item_segment !== item[S-1:0];
          else wrong = wrong || item_page !== item[P-1:0];
          if (wrong) begin
            $display("command %0d, item %0d: segment %0d, page %0d, first %b, last %b, expected %0d, item %0d of %0d", at, i,
                     item_segment, item_page, item_first, item_last, item, i + 1, count);
            errors = errors + 1;
          end
          i = i + 1;
        end
        tick;
        item_ready = lfsr[0] || lfsr[5];
        #1;
      end
      wrong = answer_status !== status || i != count;
      // A root or a fork answers with its segment, an append with the token's page.
      if (status == 3'd0 && command <= 3'd1)
        wrong = wrong || answer_segment !== new_segment[S-1:0] || answer_generation !== new_generation;
      if (status == 3'd0 && command == 3'd2) wrong = wrong || answer_page !== page[P-1:0] || answer_place !== place;
      item_at = item_at + count;
      tick;
      wrong = wrong || pages_used !== pages || segments_used !== segments;
      if (wrong) begin
        $display("command %0d (%0d of segment %0d): status %0d, expected %0d; %0d items, expected %0d; %0d pages and %0d segments in use, expected %0d and %0d",
                 at, command, segment, answer_status, status, i, count, pages_used, segments_used, pages, segments);
        errors = errors + 1;
      end
    end
    if (errors == 0) $display("PASS fgmp_page_table: %0d commands and %0d items agree", COMMANDS, item_at);
    else begin
      $display("FAIL fgmp_page_table: %0d errors", errors);
      $stop;
    end
    $finish;
  end
endmodule
