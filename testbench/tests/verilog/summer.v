// Sums the 16-bit items of a packet and gives a 40-bit total with the packet's length and a 137-bit echo: small,
// but with every kind of port width, back-pressure in both directions and a pipeline.
module summer (
    input  wire         clock,
    input  wire         reset,
    input  wire [7:0]   bias,
    input  wire         x_valid,
    output wire         x_ready,
    input  wire [15:0]  x_item,
    input  wire [136:0] x_wide,
    input  wire         x_last,
    output wire         sum_valid,
    input  wire         sum_ready,
    output wire [39:0]  sum_total,
    output wire [136:0] sum_echo,
    output wire         sum_last,
    output wire         length_valid,
    input  wire         length_ready,
    output wire [63:0]  length_items
);
    reg [39:0]  total;
    reg [136:0] echo;
    reg [63:0]  items;
    reg         sum_full, length_full;
    reg [39:0]  sum_out;
    reg [136:0] echo_out;
    reg [63:0]  items_out;

    wire [39:0] next_total = total + {24'd0, x_item} + {32'd0, bias};
    wire take = x_valid & x_ready;

    assign x_ready = (~sum_full | sum_ready) & (~length_full | length_ready);
    assign sum_valid = sum_full;
    assign sum_total = sum_out;
    assign sum_echo = echo_out;
    assign sum_last = 1'b1;
    assign length_valid = length_full;
    assign length_items = items_out;

    always @(posedge clock) begin
        if (sum_ready) sum_full <= 1'b0;
        if (length_ready) length_full <= 1'b0;
        if (take) begin
            total <= x_last ? 40'd0 : next_total;
            echo <= x_last ? 137'd0 : echo ^ x_wide;
            items <= x_last ? 64'd0 : items + 64'd1;
            if (x_last) begin
                sum_full <= 1'b1;
                length_full <= 1'b1;
                sum_out <= next_total;
                echo_out <= echo ^ x_wide;
                items_out <= items + 64'd1;
            end
        end
        if (reset) begin
            total <= 40'd0;
            echo <= 137'd0;
            items <= 64'd0;
            sum_full <= 1'b0;
            length_full <= 1'b0;
        end
    end
endmodule
