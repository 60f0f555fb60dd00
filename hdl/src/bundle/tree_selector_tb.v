// Self-checking testbench of fgmp_tree_selector: reads tb/*.hex, prints PASS, or FAIL and stops ($stop, exit status 1 of vvp -N).
// Nodes are read with pauses that an LFSR chooses.
`timescale 1ns / 1ps

module fgmp_tree_selector_tb;
  localparam JOBS = @JOBS@;
  localparam NODES = @NODES@;
  localparam LEAVES = @LEAVES@;
  localparam READS = @READS@;
  localparam PATIENCE = 1 << 21;

  reg clock = 1'b0;
  reg reset = 1'b1;
  always #5 clock = ~clock;
  reg [15:0] lfsr = 16'hACE1;
  always @(posedge clock) lfsr <= {lfsr[14:0], lfsr[15] ^ lfsr[13] ^ lfsr[12] ^ lfsr[10]};

  // Of each job: how many nodes, leaves and reads it has, what the selector is told, and the golden model's proof, worth and halves.
  reg [388:0] jobs [0:JOBS-1];
  // Of each node: whether it is a root, its parent, its cost.
  reg [28:0] nodes [0:NODES-1];
  // Of each leaf: its node, its cluster, whether it has a score, the score; then whether it is kept, and how often it is continued.
  reg [69:0] leaves [0:LEAVES-1];
  // Of each node that is read: its number, its depth, whether it has one child, whether it is a leaf, the leaf's number, whether it is the last.
  reg [30:0] reads [0:READS-1];
  initial begin
    $readmemh("tb/jobs.hex", jobs);
    $readmemh("tb/nodes.hex", nodes);
    $readmemh("tb/leaves.hex", leaves);
    $readmemh("tb/reads.hex", reads);
  end

  reg node_write = 1'b0;
  reg [11:0] node = 12'd0;
  reg node_root = 1'b0;
  reg [11:0] node_parent = 12'd0;
  reg [15:0] node_cost = 16'd0;
  reg leaf_write = 1'b0;
  reg [7:0] leaf = 8'd0;
  reg [11:0] leaf_node = 12'd0;
  reg [7:0] leaf_cluster = 8'd0;
  reg leaf_scored = 1'b0;
  reg [31:0] leaf_score = 32'd0;
  reg start = 1'b0;
  reg [7:0] last_leaf = 8'd0;
  reg [7:0] last_cluster = 8'd0;
  reg [15:0] width = 16'd0;
  reg [31:0] rate = 32'd0;
  reg [55:0] gain = 56'd0;
  reg [55:0] price = 56'd0;
  reg [55:0] cover_worth = 56'd0;
  reg [7:0] rounds = 8'd0;
  reg read_ready = 1'b0;
  wire done;
  wire selected;
  wire proved;
  wire [55:0] worth;
  wire [8:0] halves;
  wire leaf_kept;
  wire [15:0] leaf_count;
  wire read_valid;
  wire [11:0] read_node;
  wire [7:0] read_depth;
  wire read_single;
  wire read_leaf;
  wire [7:0] read_number;
  wire read_last;

  fgmp_tree_selector selector (
    .clock(clock),
    .reset(reset),
    .node_write(node_write),
    .node(node),
    .node_root(node_root),
    .node_parent(node_parent),
    .node_cost(node_cost),
    .leaf_write(leaf_write),
    .leaf(leaf),
    .leaf_node(leaf_node),
    .leaf_cluster(leaf_cluster),
    .leaf_scored(leaf_scored),
    .leaf_score(leaf_score),
    .start(start),
    .last_leaf(last_leaf),
    .last_cluster(last_cluster),
    .width(width),
    .rate(rate),
    .gain(gain),
    .price(price),
    .cover_worth(cover_worth),
    .rounds(rounds),
    .done(done),
    .selected(selected),
    .proved(proved),
    .worth(worth),
    .halves(halves),
    .leaf_kept(leaf_kept),
    .leaf_count(leaf_count),
    .read_valid(read_valid),
    .read_ready(read_ready),
    .read_node(read_node),
    .read_depth(read_depth),
    .read_single(read_single),
    .read_leaf(read_leaf),
    .read_number(read_number),
    .read_last(read_last)
  );

  integer errors = 0;
  integer job, i, cycles;
  integer node_at = 0;
  integer leaf_at = 0;
  integer read_at = 0;
  reg [12:0] job_nodes, job_reads;
  reg [8:0] job_leaves;
  reg job_proved;
  reg [55:0] job_worth;
  reg [8:0] job_halves;
  reg [16:0] expected;
  reg [30:0] read;
  reg [30:0] found;

  // The clock's edge, and what follows from it.
  task tick;
    begin
      @(posedge clock);
      #1;
      cycles = cycles + 1;
      if (cycles > PATIENCE) begin
        $display("FAIL fgmp_tree_selector: hangs in job %0d", job);
        $stop;
        $finish;
      end
    end
  endtask

  initial begin
    cycles = 0;
    job = 0;
    repeat (4) tick;
    reset = 1'b0;
    for (job = 0; job < JOBS; job = job + 1) begin
      {job_nodes, job_leaves, job_reads, last_cluster, width, rate, gain, price, cover_worth, rounds,
       job_proved, job_worth, job_halves} = jobs[job];
      node_write = 1'b1;
      for (i = 0; i < job_nodes; i = i + 1) begin
        node = i;
        {node_root, node_parent, node_cost} = nodes[node_at];
        node_at = node_at + 1;
        tick;
      end
      node_write = 1'b0;
      leaf_write = 1'b1;
      for (i = 0; i < job_leaves; i = i + 1) begin
        leaf = i;
        {leaf_node, leaf_cluster, leaf_scored, leaf_score, expected} = leaves[leaf_at + i];
        tick;
      end
      leaf_write = 1'b0;
      last_leaf = job_leaves - 1;
      start = 1'b1;
      cycles = 0;
      tick;
      start = 1'b0;
      while (selected !== 1'b1) tick;
      i = 0;
      while (done !== 1'b1) begin
        read_ready = lfsr[0] || lfsr[5];
        #1;
        if (read_valid === 1'b1 && read_ready) begin
          read = i < job_reads ? reads[read_at + i] : 31'h7fffffff;
          found = {read_node, read_depth, read_single, read_leaf, read_leaf ? read_number : 8'd0, read_last};
          if (found !== read) begin
            $display("job %0d, read %0d: found %h, expected %h", job, i, found, read);
            errors = errors + 1;
          end
          i = i + 1;
        end
        tick;
      end
      read_ready = 1'b0;
      if (i != job_reads) begin
        $display("job %0d: %0d reads, expected %0d", job, i, job_reads);
        errors = errors + 1;
      end
      read_at = read_at + job_reads;
      for (i = 0; i < job_leaves; i = i + 1) begin
        leaf = i;
        expected = leaves[leaf_at + i];
        #1;
        if ({leaf_kept, leaf_count} !== expected) begin
          $display("job %0d, leaf %0d: kept %b, continued %0d times, expected %b, %0d", job, i, leaf_kept, leaf_count,
                   expected[16], expected[15:0]);
          errors = errors + 1;
        end
      end
      leaf_at = leaf_at + job_leaves;
      if ({proved, worth, halves} !== {job_proved, job_worth, job_halves}) begin
        $display("job %0d: proved %b, worth %h, %0d halves, expected %b, %h, %0d", job, proved, worth, halves, job_proved,
                 job_worth, job_halves);
        errors = errors + 1;
      end
      tick;
    end
    if (errors == 0) $display("PASS fgmp_tree_selector: %0d selections agree, %0d leaves and %0d reads", JOBS, leaf_at, read_at);
    else begin
      $display("FAIL fgmp_tree_selector: %0d errors", errors);
      $stop;
    end
    $finish;
  end
endmodule
