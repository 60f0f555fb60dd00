// A board that sends back what it hears: a UART (8N1, 16 clocks a bit) on both sides of a FIFO of 4096 bytes. A byte whose
// start or stop bit is wrong is left out. `busy` is high while there is something to send.
module echo (
    input  wire clock,
    input  wire reset,
    input  wire rx,
    output wire tx,
    output wire busy
);
    localparam [15:0] CLOCKS_PER_BIT = 16'd16;

    // Two registers against metastability.
    reg [1:0] heard = 2'b11;
    always @(posedge clock) heard <= {heard[0], rx};

    reg        taking = 1'b0;
    reg        released = 1'b1;
    reg [15:0] take_timer = 16'd0;
    reg [3:0]  take_bit = 4'd0;
    reg [7:0]  take_byte = 8'd0;

    reg [7:0]  store [0:4095];
    reg [11:0] write_at = 12'd0;
    reg [11:0] read_at = 12'd0;

    reg        giving = 1'b0;
    reg [15:0] give_timer = 16'd0;
    reg [3:0]  give_bit = 4'd0;
    reg [9:0]  give_levels = 10'h3ff;

    assign tx = give_levels[0];
    assign busy = giving | (write_at != read_at);

    always @(posedge clock) begin
        // The receiver looks at the middle of each bit.
        if (!taking) begin
            if (heard[1]) released <= 1'b1;
            else if (released) begin
                taking <= 1'b1;
                take_bit <= 4'd0;
                take_timer <= (CLOCKS_PER_BIT >> 1) - 16'd1;
            end
        end else if (take_timer != 16'd0) take_timer <= take_timer - 16'd1;
        else begin
            take_timer <= CLOCKS_PER_BIT - 16'd1;
            take_bit <= take_bit + 4'd1;
            if (take_bit == 4'd0) begin
                if (heard[1]) taking <= 1'b0;
            end else if (take_bit != 4'd9) take_byte <= {heard[1], take_byte[7:1]};
            else begin
                taking <= 1'b0;
                released <= heard[1];
                if (heard[1]) begin
                    store[write_at] <= take_byte;
                    write_at <= write_at + 12'd1;
                end
            end
        end

        if (!giving) begin
            if (write_at != read_at) begin
                giving <= 1'b1;
                give_levels <= {1'b1, store[read_at], 1'b0};
                give_bit <= 4'd0;
                give_timer <= CLOCKS_PER_BIT - 16'd1;
                read_at <= read_at + 12'd1;
            end
        end else if (give_timer != 16'd0) give_timer <= give_timer - 16'd1;
        else begin
            give_levels <= {1'b1, give_levels[9:1]};
            give_timer <= CLOCKS_PER_BIT - 16'd1;
            give_bit <= give_bit + 4'd1;
            // The stop bit of one byte ends with the start bit of the next.
            if (give_bit == 4'd9) begin
                if (write_at != read_at) begin
                    give_levels <= {1'b1, store[read_at], 1'b0};
                    give_bit <= 4'd0;
                    read_at <= read_at + 12'd1;
                end else giving <= 1'b0;
            end
        end

        if (reset) begin
            taking <= 1'b0;
            released <= 1'b0;
            write_at <= 12'd0;
            read_at <= 12'd0;
            giving <= 1'b0;
            give_levels <= 10'h3ff;
        end
    end
endmodule
