//! Verilog identifiers.

use super::error::Fault;
use std::collections::HashMap;

/// Reserved words of Verilog-2005 and of SystemVerilog, which several tools read `.v` files as.
const RESERVED: &str = "\
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic \
    before begin bind bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle \
    checker class clocking cmos config const constraint context continue cover covergroup \
    coverpoint cross deassign default defparam design disable dist do edge else end endcase \
    endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface \
    endmodule endpackage endprimitive endprogram endproperty endsequence endspecify endtable \
    endtask enum event eventually expect export extends extern final first_match for force \
    foreach forever fork forkjoin function generate genvar global highz0 highz1 if iff ifnone \
    ignore_bins illegal_bins implements implies import incdir include initial inout input inside \
    instance int integer interconnect interface intersect join join_any join_none large let \
    liblist library local localparam logic longint macromodule matches medium modport module \
    nand negedge nettype new nexttime nmos nor noshowcancelled not notif0 notif1 null or output \
    package packed parameter pmos posedge primitive priority program property protected pull0 \
    pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase \
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos \
    rpmos rtran rtranif0 rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared \
    sequence shortint shortreal showcancelled signed small soft solve specify specparam static \
    string strong strong0 strong1 struct super supply0 supply1 sync_accept_on sync_reject_on \
    table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri tri0 \
    tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped \
    use uwire var vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard \
    wire with within wor xnor xor \
";

/// Keywords of C++ that are none of Verilog: Verilator, which translates to it, warns of them.
const RESERVED_IN_CPP: &str = "\
    alignas alignof and_eq asm auto bitand bitor bool catch char char16_t char32_t char8_t co_await \
    co_return co_yield compl concept const_cast consteval constexpr constinit decltype delete double \
    dynamic_cast explicit false float friend goto inline long mutable namespace noexcept not_eq \
    nullptr operator or_eq private public register reinterpret_cast requires short sizeof \
    static_assert static_cast switch template thread_local throw true try typeid typename using \
    volatile wchar_t xor_eq \
";

fn is_word_of(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|reserved| reserved == word)
}

/// Whether a word can't name anything in Verilog, or not without a warning.
pub(super) fn is_reserved(word: &str) -> bool {
    is_word_of(RESERVED, word) || is_word_of(RESERVED_IN_CPP, word)
}

/// The identifiers of one module, each with what it stands for.
#[derive(Default)]
pub(super) struct Names {
    taken: HashMap<String, String>,
}

impl Names {
    /// The identifier of a name of the source: `pe$3$acc` becomes `pe_3_acc`. Refuses reserved words and names that
    /// become equal.
    pub fn claim(&mut self, source: &str) -> Result<String, Fault> {
        let identifier = source.replace('$', "_");
        let plain = identifier.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && identifier
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            return Err(Fault::new(
                source,
                "is no Verilog identifier",
                "use ASCII letters, digits and `_`",
            ));
        }
        if is_reserved(&identifier) {
            let reason = if is_word_of(RESERVED, &identifier) {
                "is a reserved word of Verilog"
            } else {
                "is a keyword of C++, which Verilator translates to"
            };
            return Err(Fault::new(source, reason, "rename the field"));
        }
        if let Some(other) = self.taken.insert(identifier.clone(), source.to_owned()) {
            let other = super::error::source_name(&other);
            return Err(Fault::new(
                source,
                format!("and `{other}` both become `{identifier}`"),
                "rename one of them",
            ));
        }
        Ok(identifier)
    }

    /// A free identifier for something that has no name in the source.
    pub fn invent(&mut self, base: &str) -> String {
        let base = base.replace('$', "_");
        let mut identifier = base.clone();
        let mut number = 2;
        while is_reserved(&identifier) || self.taken.contains_key(&identifier) {
            identifier = format!("{base}_{number}");
            number += 1;
        }
        self.taken.insert(identifier.clone(), identifier.clone());
        identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_either_language_are_reserved() {
        assert!(is_reserved("begin") && is_reserved("logic") && !is_reserved("payload"));
    }

    #[test]
    fn names_that_become_equal_are_refused() {
        let mut names = Names::default();
        assert_eq!(names.claim("a$b").ok().as_deref(), Some("a_b"));
        let fault = names.claim("a_b").expect_err("taken");
        assert_eq!(fault.reason, "and `a.b` both become `a_b`");
        assert_eq!(names.invent("a_b"), "a_b_2");
        assert!(names.claim("end").is_err());
        let fault = names.claim("double").expect_err("reserved");
        assert_eq!(
            fault.reason,
            "is a keyword of C++, which Verilator translates to"
        );
    }
}
