// A 2 x 2 array written for the bench's own tests: behavioural, slow in hardware, with the ports of the emitted one.
// What is named `units` is an integer; its unit stands beside it.
module array (
    input  wire         clock,
    input  wire         reset,
    input  wire [31:0]  output_scale,
    input  wire         weight_valid,
    output wire         weight_ready,
    input  wire         weight_last,
    input  wire [136:0] weight_data_0,
    input  wire [136:0] weight_data_1,
    input  wire         act_valid,
    output wire         act_ready,
    input  wire         act_last,
    input  wire [136:0] act_data_0,
    input  wire [136:0] act_data_1,
    output wire         out_valid,
    input  wire         out_ready,
    output wire         out_last,
    output wire [15:0]  out_data,
    output wire [55:0]  out_acc,
    output wire         out_nan
);
    // Rounds a magnitude to `bits` significant bits, ties to even.
    function [63:0] round(input [63:0] magnitude, input integer bits);
        integer top, i;
        reg [63:0] unit, rest;
        begin
            top = 0;
            for (i = 0; i < 64; i = i + 1) if (magnitude[i]) top = i;
            round = magnitude;
            if (top >= bits) begin
                unit = 64'd1 << (top - bits + 1);
                rest = magnitude & (unit - 64'd1);
                round = magnitude - rest;
                if (rest > unit >> 1 || (rest == unit >> 1 && (magnitude & unit) != 64'd0)) round = round + unit;
            end
        end
    endfunction

    // RNE_BF16(RNE_FP32(RNE_FP32(acc * 2^-20) * m)).
    function [15:0] requantize(input signed [55:0] acc, input nan, input [31:0] m);
        reg [63:0] magnitude, product;
        reg [23:0] significand;
        integer top, shift, i, exponent;
        begin
            magnitude = acc < 56'sd0 ? -{{8{acc[55]}}, acc} : {{8{acc[55]}}, acc};
            magnitude = round(magnitude, 24);
            shift = 0;
            // At most 24 significant bits remain: bring them below 2^24.
            for (i = 0; i < 64; i = i + 1)
                if (magnitude >= 64'h1000000) begin
                    magnitude = magnitude >> 1;
                    shift = shift + 1;
                end
            significand = {1'b1, m[22:0]};
            product = m[30:23] == 8'd0 ? 64'd0 : magnitude * {40'd0, significand};
            product = round(round(product, 24), 8);
            top = 0;
            for (i = 0; i < 64; i = i + 1) if (product[i]) top = i;
            // product * 2^(shift - 20 + (e - 127) - 23)
            exponent = top + shift - 20 + {24'd0, m[30:23]} - 127 - 23 + 127;
            product = top >= 7 ? product >> (top - 7) : product << (7 - top);
            requantize = {(acc < 56'sd0) ^ m[31], 15'd0};
            if (product != 64'd0) requantize[14:0] = {exponent[7:0], product[6:0]};
            if (nan) requantize = 16'h7fc0;
        end
    endfunction

    reg [223:0] sum, result;
    reg [3:0] nan, result_nan;
    reg [1:0] index;
    reg draining;
    integer i;

    wire last = weight_last | act_last;
    wire drained = draining & out_ready & (index == 2'd3);
    wire free = ~draining | drained | ~last;
    wire step = weight_valid & act_valid & free;
    assign weight_ready = act_valid & free;
    assign act_ready = weight_valid & free;

    assign out_valid = draining;
    assign out_last = index == 2'd3;
    assign out_acc = result[56*index +: 56];
    assign out_nan = result_nan[index];
    assign out_data = requantize(out_acc, out_nan, output_scale);

    // Result 2c + r is that of row r and column c.
    wire [255:0] pairs;
    wire [3:0] pair_nan;
    pair pair_0 (.w(weight_data_0), .a(act_data_0), .units(pairs[63:0]), .nan(pair_nan[0]));
    pair pair_1 (.w(weight_data_1), .a(act_data_0), .units(pairs[127:64]), .nan(pair_nan[1]));
    pair pair_2 (.w(weight_data_0), .a(act_data_1), .units(pairs[191:128]), .nan(pair_nan[2]));
    pair pair_3 (.w(weight_data_1), .a(act_data_1), .units(pairs[255:192]), .nan(pair_nan[3]));

    reg signed [63:0] next;
    reg next_nan;
    always @(posedge clock) begin
        if (draining & out_ready) index <= index + 2'd1;
        if (drained) draining <= 1'b0;
        if (step) begin
            for (i = 0; i < 4; i = i + 1) begin
                next = {{8{sum[56*i + 55]}}, sum[56*i +: 56]} + pairs[64*i +: 64];
                next_nan = nan[i] | pair_nan[i];
                sum[56*i +: 56] <= last ? 56'd0 : next[55:0];
                nan[i] <= last ? 1'b0 : next_nan;
                if (last) begin
                    result[56*i +: 56] <= next[55:0];
                    result_nan[i] <= next_nan;
                end
            end
            if (last) begin
                draining <= 1'b1;
                index <= 2'd0;
            end
        end
        if (reset) begin
            draining <= 1'b0;
            index <= 2'd0;
            nan <= 4'd0;
            sum <= 224'd0;
        end
    end
endmodule

// One block pair in 2^-20.
module pair (
    input  wire [136:0]        w,
    input  wire [136:0]        a,
    output reg  signed [63:0]  units,
    output wire                nan
);
    /*verilator no_inline_module*/
    // E2M1 in halves.
    function signed [63:0] fp4_units(input [3:0] code);
        reg [63:0] magnitude;
        begin
            case (code[2:0])
                3'd0: magnitude = 64'd0;
                3'd1: magnitude = 64'd1;
                3'd2: magnitude = 64'd2;
                3'd3: magnitude = 64'd3;
                3'd4: magnitude = 64'd4;
                3'd5: magnitude = 64'd6;
                3'd6: magnitude = 64'd8;
                default: magnitude = 64'd12;
            endcase
            fp4_units = code[3] ? -magnitude : magnitude;
        end
    endfunction

    // E4M3 in 2^-9; NaN counts as zero.
    function signed [63:0] fp8_units(input [7:0] code);
        reg [63:0] magnitude;
        begin
            if (code[6:3] == 4'd0) magnitude = {61'd0, code[2:0]};
            else magnitude = {60'd0, 1'b1, code[2:0]} << (code[6:3] - 4'd1);
            if (code[6:0] == 7'h7f) magnitude = 64'd0;
            fp8_units = code[7] ? -magnitude : magnitude;
        end
    endfunction

    function has_nan(input [136:0] block);
        integer i;
        begin
            has_nan = 1'b0;
            for (i = 0; i < 16; i = i + 1)
                if (block[8*i +: 7] == 7'h7f) has_nan = block[136];
        end
    endfunction

    assign nan = has_nan(w) | has_nan(a);

    integer i;
    reg signed [63:0] sum, scale_w, scale_a;
    reg [1:0] shift;
    always @(*) begin
        sum = 64'sd0;
        for (i = 0; i < 16; i = i + 1)
            sum = sum + (w[136] ? fp8_units(w[8*i +: 8]) : fp4_units(w[4*i +: 4]))
                      * (a[136] ? fp8_units(a[8*i +: 8]) : fp4_units(a[4*i +: 4]));
        scale_w = w[136] ? 64'sd1 : fp8_units(w[135:128]);
        scale_a = a[136] ? 64'sd1 : fp8_units(a[135:128]);
        shift = {1'b0, w[136]} + {1'b0, a[136]};
        units = nan ? 64'sd0 : (sum * scale_w * scale_a) <<< shift;
    end
endmodule
