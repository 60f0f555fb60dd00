//! Phase-locked loops: settings as data, and what follows from them.

use std::fmt::Write as _;

use serde::Serialize;

/// The loop that makes a board's clock, with its settings. Frequencies in hertz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "primitive")]
pub enum Pll {
    /// iCE40's `SB_PLL40_CORE` with feedback before the output divider.
    #[serde(rename = "SB_PLL40_CORE")]
    Ice40 {
        /// Frequency in.
        input_hz: u32,
        /// Divider of the input, less one.
        divr: u8,
        /// Divider of the feedback, less one.
        divf: u8,
        /// Divider of the output, as a power of two.
        divq: u8,
        /// Range of the loop filter, which follows from the phase detector's frequency.
        filter_range: u8,
    },
    /// ECP5's `EHXPLLL` with feedback from its first output.
    #[serde(rename = "EHXPLLL")]
    Ecp5 {
        /// Frequency in.
        input_hz: u32,
        /// Divider of the input.
        clki_div: u8,
        /// Divider of the feedback.
        clkfb_div: u8,
        /// Divider of the first output, CLKOP.
        clkop_div: u8,
        /// Divider of the second output, CLKOS, where that is the clock.
        clkos_div: Option<u8>,
    },
    /// Gowin's `rPLL`.
    #[serde(rename = "rPLL")]
    Gowin {
        /// Frequency in.
        input_hz: u32,
        /// Divider of the input, less one.
        idiv_sel: u8,
        /// Divider of the feedback, less one.
        fbdiv_sel: u8,
        /// Divider from the oscillator to the output.
        odiv_sel: u8,
        /// The device, as the primitive's parameter spells it.
        device: &'static str,
        /// The oscillator's range on this device, in MHz.
        vco_mhz: (u32, u32),
    },
}

/// Simulation models of the primitives: file name and text. They pass the clock on as it is and raise the lock after some cycles, as their comments say.
pub const MODELS: [(&str, &str); 3] = [
    ("SB_PLL40_CORE.v", include_str!("models/SB_PLL40_CORE.v")),
    ("EHXPLLL.v", include_str!("models/EHXPLLL.v")),
    ("rPLL.v", include_str!("models/rPLL.v")),
];

/// A setting that the primitive can't have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PllError {
    /// A frequency is out of its range.
    #[error("{what} at {mhz} MHz is out of its range, {low} to {high} MHz")]
    Range {
        /// The part.
        what: &'static str,
        /// Its frequency.
        mhz: f64,
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
    },
    /// A divider that isn't there.
    #[error("{what} can't be {value}")]
    Divider {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: u8,
    },
    /// The output isn't a whole number of hertz.
    #[error("the output is no whole number of hertz")]
    Fraction,
}

impl Pll {
    /// The file of [`MODELS`] that stands for its primitive in simulation.
    #[must_use]
    pub const fn model(&self) -> &'static str {
        match self {
            Self::Ice40 { .. } => "SB_PLL40_CORE.v",
            Self::Ecp5 { .. } => "EHXPLLL.v",
            Self::Gowin { .. } => "rPLL.v",
        }
    }

    /// Frequency that goes in, in hertz.
    #[must_use]
    pub const fn input_hz(&self) -> u32 {
        match self {
            Self::Ice40 { input_hz, .. }
            | Self::Ecp5 { input_hz, .. }
            | Self::Gowin { input_hz, .. } => *input_hz,
        }
    }

    /// Frequencies of the phase detector, of the oscillator and of the output, each as a fraction in hertz.
    fn frequencies(&self) -> [(u64, u64); 3] {
        let input = u64::from(self.input_hz());
        let wide = |value: u8| u64::from(value);
        match *self {
            Self::Ice40 {
                divr, divf, divq, ..
            } => {
                let (divider, product) = (wide(divr) + 1, input * (wide(divf) + 1));
                [
                    (input, divider),
                    (product, divider),
                    (product, divider << divq.min(7)),
                ]
            }
            Self::Ecp5 {
                clki_div,
                clkfb_div,
                clkop_div,
                clkos_div,
                ..
            } => {
                let divider = wide(clki_div).max(1);
                let vco = input * wide(clkfb_div) * wide(clkop_div);
                let output = wide(clkos_div.unwrap_or(clkop_div)).max(1);
                [(input, divider), (vco, divider), (vco, divider * output)]
            }
            Self::Gowin {
                idiv_sel,
                fbdiv_sel,
                odiv_sel,
                ..
            } => {
                let (divider, output) = (wide(idiv_sel) + 1, input * (wide(fbdiv_sel) + 1));
                [
                    (input, divider),
                    (output * wide(odiv_sel), divider),
                    (output, divider),
                ]
            }
        }
    }

    /// Frequency that comes out, in hertz.
    #[must_use]
    pub fn output_hz(&self) -> u32 {
        let [_, _, (numerator, denominator)] = self.frequencies();
        u32::try_from(numerator / denominator).unwrap_or(u32::MAX)
    }

    /// Checks the settings against the device's rules: iCE40 from `icepll`, ECP5 from `ecppll`, Gowin from `gowin_pll`, which have them
    /// from the data sheets.
    ///
    /// # Errors
    /// [`PllError`], the first rule that is broken.
    pub fn check(&self) -> Result<(), PllError> {
        let mhz =
            |(numerator, denominator): (u64, u64)| numerator as f64 / denominator as f64 / 1e6;
        let [detector, oscillator, output] = self.frequencies();
        let within = |what, frequency, low, high| {
            let mhz = mhz(frequency);
            if (low..=high).contains(&mhz) {
                Ok(())
            } else {
                Err(PllError::Range {
                    what,
                    mhz,
                    low,
                    high,
                })
            }
        };
        let divider = |what, value: u8, holds: bool| {
            if holds {
                Ok(())
            } else {
                Err(PllError::Divider { what, value })
            }
        };
        match *self {
            Self::Ice40 {
                divr,
                divf,
                divq,
                filter_range,
                ..
            } => {
                divider("DIVR", divr, divr < 16)?;
                divider("DIVF", divf, divf < 128)?;
                divider("DIVQ", divq, (1..=6).contains(&divq))?;
                within("the phase detector", detector, 10.0, 133.0)?;
                within("the oscillator", oscillator, 533.0, 1066.0)?;
                within("the output", output, 16.0, 275.0)?;
                let range = match mhz(detector) {
                    f if f < 17.0 => 1,
                    f if f < 26.0 => 2,
                    f if f < 44.0 => 3,
                    f if f < 66.0 => 4,
                    f if f < 101.0 => 5,
                    _ => 6,
                };
                divider("FILTER_RANGE", filter_range, filter_range == range)?;
            }
            Self::Ecp5 {
                clki_div,
                clkfb_div,
                clkop_div,
                clkos_div,
                ..
            } => {
                let fits = |value: u8| (1..=128).contains(&value);
                divider("CLKI_DIV", clki_div, fits(clki_div))?;
                divider("CLKFB_DIV", clkfb_div, fits(clkfb_div))?;
                divider("CLKOP_DIV", clkop_div, fits(clkop_div))?;
                if let Some(clkos_div) = clkos_div {
                    divider("CLKOS_DIV", clkos_div, fits(clkos_div))?;
                }
                within("the phase detector", detector, 3.125, 400.0)?;
                within("the oscillator", oscillator, 400.0, 800.0)?;
                within("the output", output, 3.125, 400.0)?;
            }
            Self::Gowin {
                idiv_sel,
                fbdiv_sel,
                odiv_sel,
                vco_mhz: (low, high),
                ..
            } => {
                divider("IDIV_SEL", idiv_sel, idiv_sel < 64)?;
                divider("FBDIV_SEL", fbdiv_sel, fbdiv_sel < 64)?;
                let steps = [2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128];
                divider("ODIV_SEL", odiv_sel, steps.contains(&odiv_sel))?;
                within("the phase detector", detector, 3.0, 400.0)?;
                within(
                    "the oscillator",
                    oscillator,
                    f64::from(low),
                    f64::from(high),
                )?;
                within("the output", output, 3.90625, 600.0)?;
            }
        }
        if output.0 % output.1 == 0 {
            Ok(())
        } else {
            Err(PllError::Fraction)
        }
    }

    /// The instance that makes the wire `clock` of `input`, and raises the wire `locked` when it is steady.
    pub(crate) fn instance(&self, input: &str) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = match *self {
            Self::Ice40 {
                divr,
                divf,
                divq,
                filter_range,
                ..
            } => write!(
                text,
                "  SB_PLL40_CORE #(\n    .FEEDBACK_PATH(\"SIMPLE\"),\n    .PLLOUT_SELECT(\"GENCLK\"),\n    .DIVR(4'd{divr}),\n    .DIVF(7'd{divf}),\n    .DIVQ(3'd{divq}),\n    .FILTER_RANGE(3'd{filter_range})\n  ) pll (\n    .REFERENCECLK({input}),\n    .RESETB(1'b1),\n    .BYPASS(1'b0),\n    .PLLOUTGLOBAL(clock),\n    .LOCK(locked)\n  );\n"
            ),
            Self::Ecp5 {
                clki_div,
                clkfb_div,
                clkop_div,
                clkos_div,
                ..
            } => {
                // The phase at which the input's and the outputs' edges meet, as `ecppll` has it.
                let phase = clkop_div.saturating_sub(1) / 2;
                let second = clkos_div.map_or_else(String::new, |divider| {
                    format!(
                        ",\n    .CLKOS_ENABLE(\"ENABLED\"),\n    .CLKOS_DIV({divider}),\n    .CLKOS_CPHASE({phase}),\n    .CLKOS_FPHASE(0)"
                    )
                });
                // Without a second output, that port stays open.
                let (before, after) = match clkos_div {
                    Some(_) => ("  wire feedback;\n", ""),
                    None => (
                        "  /* verilator lint_off PINMISSING */\n",
                        "  /* verilator lint_on PINMISSING */\n",
                    ),
                };
                let (first, second_port) = match clkos_div {
                    Some(_) => ("feedback", "    .CLKOS(clock),\n"),
                    None => ("clock", ""),
                };
                write!(
                    text,
                    "{before}  (* ICP_CURRENT=\"12\" *) (* LPF_RESISTOR=\"8\" *) (* MFG_ENABLE_FILTEROPAMP=\"1\" *) (* MFG_GMCREF_SEL=\"2\" *)\n  EHXPLLL #(\n    .PLLRST_ENA(\"DISABLED\"),\n    .INTFB_WAKE(\"DISABLED\"),\n    .STDBY_ENABLE(\"DISABLED\"),\n    .DPHASE_SOURCE(\"DISABLED\"),\n    .OUTDIVIDER_MUXA(\"DIVA\"),\n    .OUTDIVIDER_MUXB(\"DIVB\"),\n    .OUTDIVIDER_MUXC(\"DIVC\"),\n    .OUTDIVIDER_MUXD(\"DIVD\"),\n    .CLKI_DIV({clki_div}),\n    .CLKFB_DIV({clkfb_div}),\n    .FEEDBK_PATH(\"CLKOP\"),\n    .CLKOP_ENABLE(\"ENABLED\"),\n    .CLKOP_DIV({clkop_div}),\n    .CLKOP_CPHASE({phase}),\n    .CLKOP_FPHASE(0){second}\n  ) pll (\n    .CLKI({input}),\n    .CLKFB({first}),\n    .CLKOP({first}),\n{second_port}    .LOCK(locked),\n    .RST(1'b0),\n    .STDBY(1'b0),\n    .PHASESEL0(1'b0),\n    .PHASESEL1(1'b0),\n    .PHASEDIR(1'b1),\n    .PHASESTEP(1'b1),\n    .PHASELOADREG(1'b1),\n    .PLLWAKESYNC(1'b0),\n    .ENCLKOP(1'b0),\n    .ENCLKOS(1'b0)\n  );\n{after}",
                )
            }
            Self::Gowin {
                input_hz,
                idiv_sel,
                fbdiv_sel,
                odiv_sel,
                device,
                ..
            } => write!(
                text,
                "  rPLL #(\n    .FCLKIN(\"{}\"),\n    .DEVICE(\"{device}\"),\n    .IDIV_SEL({idiv_sel}),\n    .FBDIV_SEL({fbdiv_sel}),\n    .ODIV_SEL({odiv_sel})\n  ) pll (\n    .CLKIN({input}),\n    .CLKFB(1'b0),\n    .RESET(1'b0),\n    .RESET_P(1'b0),\n    .FBDSEL(6'd0),\n    .IDSEL(6'd0),\n    .ODSEL(6'd0),\n    .PSDA(4'd0),\n    .DUTYDA(4'd0),\n    .FDLY(4'd0),\n    .CLKOUT(clock),\n    .LOCK(locked)\n  );\n",
                f64::from(input_hz) / 1e6,
            ),
        };
        text
    }
}
