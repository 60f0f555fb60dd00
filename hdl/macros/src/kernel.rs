//! Checking and rewriting of a kernel.
//!
//! The checker works on syntax alone, as rust-hdl does. What it lets through reaches the syntax tree in full; what the
//! tree can't show is collected as [`Facts`] and travels beside it.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    BinOp, Block, Error, Expr, ExprCall, ExprForLoop, ExprMatch, ExprMethodCall, GenericArgument,
    GenericParam, Ident, ImplItem, ItemImpl, Lit, LitStr, Macro, Member, Pat, Path, PathArguments,
    RangeLimits, Result, Stmt, Token, Type, UnOp, parse_quote,
};

/// Arguments of the attribute: nothing, or `name = "module_name"`.
#[derive(Default)]
pub struct Attributes {
    name: Option<String>,
}

impl Parse for Attributes {
    fn parse(input: ParseStream) -> Result<Self> {
        if input.is_empty() {
            return Ok(Self::default());
        }
        let key: Ident = input.parse()?;
        if key != "name" {
            return Err(Error::new(
                key.span(),
                "the only argument is `name = \"verilog_module_name\"`",
            ));
        }
        input.parse::<Token![=]>()?;
        let name: LitStr = input.parse()?;
        let value = name.value();
        let plain = value.starts_with(|c: char| c.is_ascii_lowercase())
            && value
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !plain {
            return Err(Error::new(
                name.span(),
                "a module name is lower case letters, digits and `_`",
            ));
        }
        Ok(Self { name: Some(value) })
    }
}

/// What the width of a sign or width cast is, as far as the source says.
#[derive(Clone)]
enum CastWidth {
    /// `signed_cast`, `unsigned_cast`: the operand's own width.
    Same,
    /// The first turbofish argument.
    Given(TokenStream),
    /// Left to type inference.
    Inferred,
}

/// What a kernel says that rust-hdl's syntax tree doesn't hold.
#[derive(Default)]
struct Facts {
    /// One entry for each cast, in source order, which is the order of the tree.
    casts: Vec<CastWidth>,
    /// Named constants in expressions and indices, each with the name the tree gives it.
    constants: Vec<(String, TokenStream)>,
}

/// Turns `DotProduct16` into `dot_product16`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    let characters: Vec<char> = name.chars().collect();
    for (i, &c) in characters.iter().enumerate() {
        let after_lower =
            i > 0 && (characters[i - 1].is_lowercase() || characters[i - 1].is_ascii_digit());
        let acronym_ends = i > 0
            && characters[i - 1].is_uppercase()
            && characters
                .get(i + 1)
                .is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (after_lower || acronym_ends) {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// Arguments of the statement macros of kernels.
struct RegisterList {
    this: Token![self],
    signals: Vec<Expr>,
}

impl Parse for RegisterList {
    fn parse(input: ParseStream) -> Result<Self> {
        let this = input.parse()?;
        input.parse::<Token![,]>()?;
        let signals = Punctuated::<Expr, Token![,]>::parse_terminated(input)?
            .into_iter()
            .collect();
        Ok(Self { this, signals })
    }
}

/// Control ports of the registers that a statement macro connects, in the order of its arguments, and its form.
fn register_ports(invocation: &Macro) -> Option<(&'static [&'static str], &'static str)> {
    let path = &invocation.path;
    if path.is_ident("registers") {
        let form = "registers!(self, clock, reset, register, …)";
        Some((&["clock", "reset"], form))
    } else if path.is_ident("data_registers") {
        Some((&["clock"], "data_registers!(self, clock, register, …)"))
    } else if path.is_ident("pipeline_registers") {
        let form = "pipeline_registers!(self, clock, enable, register, …)";
        Some((&["clock", "enable"], form))
    } else {
        None
    }
}

/// Expands the statement macros of kernels; `None` for any other macro.
fn expand_statement_macro(invocation: &Macro) -> Option<Result<Vec<Stmt>>> {
    let (ports, form) = register_ports(invocation)?;
    // A register with an enable holds by itself.
    let holds = ports.contains(&"enable");
    Some(invocation.parse_body::<RegisterList>().and_then(|list| {
        let RegisterList { this, signals } = list;
        if signals.len() <= ports.len() {
            return Err(Error::new(invocation.span(), format!("expected {form}")));
        }
        let (control, registers) = signals.split_at(ports.len());
        let mut statements = Vec::new();
        for register in registers {
            for (port, signal) in ports.iter().zip(control) {
                let port = Ident::new(port, invocation.span());
                statements.push(parse_quote!(#this.#register.#port.next = #this.#signal.val();));
            }
            if !holds {
                statements.push(parse_quote!(#this.#register.d.next = #this.#register.q.val();));
            }
        }
        Ok(statements)
    }))
}

/// Replaces statement macros by what they stand for, at any depth.
#[derive(Default)]
struct MacroExpander {
    errors: Vec<Error>,
}

impl VisitMut for MacroExpander {
    fn visit_block_mut(&mut self, block: &mut Block) {
        let mut statements = Vec::new();
        for statement in block.stmts.drain(..) {
            let invocation = match &statement {
                Stmt::Macro(statement) => Some(&statement.mac),
                Stmt::Expr(Expr::Macro(expression), _) => Some(&expression.mac),
                _ => None,
            };
            match invocation.and_then(expand_statement_macro) {
                Some(Ok(expansion)) => statements.extend(expansion),
                Some(Err(error)) => self.errors.push(error),
                None => statements.push(statement),
            }
        }
        block.stmts = statements;
        visit_mut::visit_block_mut(self, block);
    }
}

/// Replaces rust-hdl's casts by equivalents that its translation neither evaluates (which fails inside loops) nor
/// overflows the stack on (`signed_bit_cast` of the most negative value).
struct CastRewriter;

impl VisitMut for CastRewriter {
    fn visit_expr_call_mut(&mut self, call: &mut ExprCall) {
        visit_mut::visit_expr_call_mut(self, call);
        if let Expr::Path(path) = call.func.as_mut()
            && path.path.segments.len() == 1
            && let Some(segment) = path.path.segments.last_mut()
        {
            let span = segment.ident.span();
            if segment.ident == "bit_cast" {
                segment.ident = Ident::new("unsigned_cast_to_width", span);
            } else if segment.ident == "signed_bit_cast" {
                segment.ident = Ident::new("signed_cast_to_width", span);
            }
        }
    }
}

/// Where an expression stands, for the rule on `.index()`.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// A value of a signal's type is wanted.
    Value,
    /// An operand of a comparison or the scrutinee of a match: `.index()` may stand here.
    Compared,
    /// A bit offset: a constant, or `.index()` of a signal.
    Offset,
}

/// Name of a path as rust-hdl's tree spells it.
fn tree_name(path: &Path) -> String {
    path.segments
        .iter()
        .map(|s| s.ident.to_string())
        .collect::<Vec<_>>()
        .join("$")
}

fn is_constant_name(path: &Path) -> bool {
    let last = path
        .segments
        .last()
        .map(|s| s.ident.to_string())
        .unwrap_or_default();
    let upper = last
        .chars()
        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    upper
        && (path.segments.len() == 1
            || last.len() > 1
            || path.segments.first().is_some_and(|s| s.ident == "Self"))
}

/// Whether an expression is arithmetic of literals and of sizes that a module keeps in fields rust-hdl skips, such as
/// `self._rows + 1`. They are evaluated when the tree is made, so a loop may end there.
fn is_size(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(literal) => matches!(literal.lit, Lit::Int(_)),
        Expr::Paren(inner) => is_size(&inner.expr),
        Expr::Binary(binary) => {
            matches!(binary.op, BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_))
                && is_size(&binary.left)
                && is_size(&binary.right)
        }
        Expr::Field(field) => {
            matches!(field.base.as_ref(), Expr::Path(path) if path.path.is_ident("self"))
                && matches!(&field.member, Member::Named(name) if name.to_string().starts_with('_'))
        }
        _ => false,
    }
}

struct Checker {
    errors: Vec<Error>,
    facts: Facts,
    /// Loop variables in scope.
    loops: Vec<Ident>,
    /// Every loop variable of the kernel.
    all_loops: Vec<Ident>,
    /// First names after `self.`.
    fields: Vec<String>,
    /// Const generic parameters.
    parameters: Vec<Ident>,
}

impl Checker {
    fn refuse(&mut self, place: impl ToTokens, message: impl std::fmt::Display) {
        self.errors.push(Error::new_spanned(place, message));
    }

    fn block(&mut self, block: &Block) {
        for statement in &block.stmts {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Expr(expression, _) => self.effect(expression),
            Stmt::Local(local) => self.refuse(
                local,
                "`let` does not translate: declare a `Signal<Local, _>` field and assign it",
            ),
            Stmt::Item(item) => self.refuse(
                item,
                "items inside a kernel do not translate: move it outside",
            ),
            Stmt::Macro(statement) => self.unknown_macro(&statement.mac),
        }
    }

    fn unknown_macro(&mut self, invocation: &Macro) {
        self.refuse(
            &invocation.path,
            "only `registers!`, `data_registers!` and `pipeline_registers!` may stand in a kernel: any other macro runs in simulation but leaves nothing in the Verilog",
        );
    }

    /// An expression that stands as a statement.
    fn effect(&mut self, expression: &Expr) {
        match expression {
            Expr::Assign(assignment) => {
                self.target(&assignment.left);
                self.value(&assignment.right, Place::Value);
            }
            Expr::If(conditional) => {
                if let Expr::Let(pattern) = conditional.cond.as_ref() {
                    self.refuse(pattern, "`if let` does not translate: use `match` or `==`");
                } else {
                    self.value(&conditional.cond, Place::Value);
                }
                self.block(&conditional.then_branch);
                if let Some((_, otherwise)) = &conditional.else_branch {
                    match otherwise.as_ref() {
                        Expr::Block(block) => self.block(&block.block),
                        other => self.effect(other),
                    }
                }
            }
            Expr::Match(selection) => self.selection(selection),
            Expr::ForLoop(repetition) => self.repetition(repetition),
            Expr::Call(call) => self.connection(call),
            Expr::Macro(invocation) => self.unknown_macro(&invocation.mac),
            Expr::MethodCall(call) => self.refuse(
                call,
                "a method call as a statement does not translate: assign `self.signal.next = …`",
            ),
            other => self.refuse(
                other,
                "this statement does not translate: a kernel has assignments to `.next`, `if`, `match`, `for` and `join`/`link`",
            ),
        }
    }

    fn selection(&mut self, selection: &ExprMatch) {
        self.value(&selection.expr, Place::Compared);
        let arms = selection.arms.len();
        for (position, arm) in selection.arms.iter().enumerate() {
            if let Some((_, guard)) = &arm.guard {
                self.refuse(
                    guard,
                    "a match guard is dropped by rust-hdl: put an `if` inside the arm",
                );
            }
            match &arm.pat {
                Pat::Lit(literal) => {
                    if !matches!(literal.lit, Lit::Int(_) | Lit::Bool(_)) {
                        self.refuse(literal, "a match label is an integer, `true`, `false`, an enum variant or `_`");
                    }
                }
                Pat::Path(_) => {}
                Pat::Wild(wild) => {
                    if position + 1 != arms {
                        self.refuse(wild, "`_` must be the last arm: in Verilog a default does not hide the arms after it");
                    }
                }
                Pat::Ident(binding) => self.refuse(
                    binding,
                    "a binding (or a constant) as a pattern does not translate: write the number, or `_`",
                ),
                Pat::Range(range) => self.refuse(range, "a range pattern does not translate: use comparisons in an `if`"),
                Pat::Or(or) => self.refuse(or, "`|` patterns do not translate: repeat the arm"),
                other => self.refuse(other, "this pattern does not translate"),
            }
            match arm.body.as_ref() {
                Expr::Block(block) => self.block(&block.block),
                body => self.effect(body),
            }
        }
    }

    fn repetition(&mut self, repetition: &ExprForLoop) {
        let variable = match repetition.pat.as_ref() {
            Pat::Ident(variable) if variable.mutability.is_none() && variable.by_ref.is_none() => {
                Some(variable.ident.clone())
            }
            other => {
                self.refuse(other, "a loop variable is a plain name");
                None
            }
        };
        match repetition.expr.as_ref() {
            Expr::Range(range) => {
                if matches!(range.limits, RangeLimits::Closed(_)) {
                    self.refuse(range, "`..=` is translated as `..` by rust-hdl, one trip short: write `..(end + 1)`");
                }
                for end in [&range.start, &range.end] {
                    match end {
                        Some(end) => self.range_end(end),
                        None => self.refuse(range, "a loop needs both ends: `start..end`"),
                    }
                }
            }
            other => self.refuse(
                other,
                "a loop runs over `start..end`, upwards: `.rev()` and iterators do not translate (count in the index instead)",
            ),
        }
        if let Some(variable) = variable {
            if self.loops.contains(&variable) {
                self.refuse(
                    &variable,
                    "this loop variable hides that of an outer loop: rename it",
                );
            }
            self.loops.push(variable.clone());
            self.all_loops.push(variable);
            self.block(&repetition.body);
            self.loops.pop();
        } else {
            self.block(&repetition.body);
        }
    }

    fn range_end(&mut self, end: &Expr) {
        if !self.is_constant(end) && !is_size(end) {
            self.refuse(end, "the ends of a loop are constants, or sizes in fields that rust-hdl skips (`self._rows`)");
        }
        if matches!(end, Expr::Binary(_)) {
            self.refuse(end, "put the arithmetic in a loop's end into parentheses");
        }
    }

    /// `Interface::join(&mut self.a, &mut self.b)` and `link`.
    fn connection(&mut self, call: &ExprCall) {
        let name = match call.func.as_ref() {
            Expr::Path(path) if path.path.segments.len() >= 2 => {
                path.path.segments.last().map(|s| s.ident.to_string())
            }
            _ => None,
        };
        if !matches!(name.as_deref(), Some("join" | "link")) || call.args.len() != 2 {
            self.refuse(
                call,
                "a function call as a statement does not translate (only `Interface::join(&mut self.a, &mut self.b)` and `link`)",
            );
            return;
        }
        for argument in &call.args {
            match argument {
                Expr::Reference(reference) if reference.mutability.is_some() => {
                    self.signal_path(&reference.expr)
                }
                other => self.refuse(other, "expected `&mut self.interface`"),
            }
        }
    }

    /// The left side of an assignment: `self.….next` or `self.….next.field`.
    fn target(&mut self, left: &Expr) {
        let Expr::Field(field) = left else {
            self.refuse(left, "only `self.….next` can be assigned");
            return;
        };
        if is_named(&field.member, "next") {
            self.signal_path(&field.base);
        } else if let Expr::Field(inner) = field.base.as_ref()
            && is_named(&inner.member, "next")
        {
            self.signal_path(&inner.base);
        } else {
            self.refuse(left, "only `self.….next` can be assigned");
        }
    }

    /// `self.a`, `self.a[i].b`, `self.a.b[i + 1]`, …
    fn signal_path(&mut self, path: &Expr) {
        match path {
            Expr::Field(field) => {
                let Member::Named(name) = &field.member else {
                    self.refuse(&field.member, "tuple fields do not translate");
                    return;
                };
                let text = name.to_string();
                if text == "next" || text == "val" || text.ends_with("self") {
                    self.refuse(
                        name,
                        "rust-hdl garbles fields named `next`, `val` or ending in `self`: rename the field",
                    );
                }
                if let Expr::Path(root) = field.base.as_ref() {
                    if root.path.is_ident("self") {
                        self.fields.push(text);
                    } else {
                        self.refuse(root, "signals are reached through `self`");
                    }
                } else {
                    self.signal_path(&field.base);
                }
            }
            Expr::Index(index) => {
                if !self.is_constant(&index.index) {
                    self.refuse(
                        &index.index,
                        "an array index is arithmetic of loop variables, literals and constants: to select by a signal, loop and compare",
                    );
                }
                self.signal_path(&index.expr);
            }
            other => self.refuse(other, "expected a signal: `self.name`"),
        }
    }

    /// Whether an expression is arithmetic of literals, loop variables and constants; notes the constants.
    fn is_constant(&mut self, expression: &Expr) -> bool {
        match expression {
            Expr::Lit(literal) => matches!(literal.lit, Lit::Int(_)),
            Expr::Path(path) => self.constant_path(&path.path),
            Expr::Field(_) => self.constant_field(expression),
            Expr::Paren(inner) => self.is_constant(&inner.expr),
            Expr::Binary(binary) => {
                matches!(
                    binary.op,
                    BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_) | BinOp::Shl(_) | BinOp::Shr(_)
                ) && self.is_constant(&binary.left)
                    && self.is_constant(&binary.right)
            }
            _ => false,
        }
    }

    /// Whether a path is a loop variable, a parameter or a named constant; notes the latter.
    fn constant_path(&mut self, path: &Path) -> bool {
        if let Some(name) = path.get_ident()
            && (self.loops.contains(name) || self.parameters.contains(name))
        {
            return true;
        }
        if !is_constant_name(path) {
            return false;
        }
        let name = tree_name(path);
        if !self.facts.constants.iter().any(|(known, _)| *known == name) {
            self.facts.constants.push((name, path.to_token_stream()));
        }
        true
    }

    /// Whether an expression is `self._name`: a plain field (rust-hdl takes no field with a leading `_` for a signal) that
    /// is fixed when the block is built; notes it as a constant.
    fn constant_field(&mut self, expression: &Expr) -> bool {
        let Expr::Field(field) = expression else {
            return false;
        };
        let (Expr::Path(root), Member::Named(name)) = (field.base.as_ref(), &field.member) else {
            return false;
        };
        let name = name.to_string();
        if !root.path.is_ident("self") || !name.starts_with('_') {
            return false;
        }
        if !self.facts.constants.iter().any(|(known, _)| *known == name) {
            self.facts
                .constants
                .push((name, expression.to_token_stream()));
        }
        true
    }

    fn value(&mut self, expression: &Expr, place: Place) {
        if self.constant_field(expression) {
            return;
        }
        match expression {
            Expr::Paren(inner) => self.value(&inner.expr, place),
            Expr::Lit(literal) => {
                if !matches!(literal.lit, Lit::Int(_) | Lit::Bool(_)) {
                    self.refuse(literal, "only integer and bool literals translate");
                }
            }
            Expr::Path(path) => {
                let enum_variant = path.path.segments.len() == 2;
                if !self.constant_path(&path.path) && !enum_variant {
                    self.refuse(path, "not a signal, loop variable, parameter, constant or `Enum::Variant`");
                }
            }
            Expr::Unary(unary) => {
                if !matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) {
                    self.refuse(unary, "this operator does not translate");
                }
                self.value(&unary.expr, Place::Value);
            }
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.cast(call),
            Expr::MethodCall(call) => self.method(call, place),
            Expr::Field(field) => match field.base.as_ref() {
                Expr::MethodCall(call) if call.method == "val" => {
                    if let Member::Unnamed(_) = field.member {
                        self.refuse(&field.member, "tuple fields do not translate");
                    }
                    self.signal_path(&call.receiver);
                }
                Expr::Field(inner) if matches!(inner.base.as_ref(), Expr::MethodCall(_)) => self.refuse(
                    field,
                    "a struct inside a struct does not translate: assign the inner one to a Local first",
                ),
                _ => self.refuse(field, "only signals are read, with `.val()`"),
            },
            Expr::Index(index) => self.refuse(index, "only signals are read, with `.val()`"),
            Expr::If(_) | Expr::Match(_) | Expr::Block(_) => self.refuse(
                expression,
                "`if`, `match` and blocks are statements in a kernel, not values: assign in each branch",
            ),
            Expr::Cast(cast) => self.refuse(cast, "`as` does not translate: use `bit_cast` or `to_bits`"),
            other => self.refuse(other, "this expression does not translate"),
        }
    }

    fn binary(&mut self, binary: &syn::ExprBinary) {
        let place = match binary.op {
            BinOp::Eq(_)
            | BinOp::Ne(_)
            | BinOp::Lt(_)
            | BinOp::Le(_)
            | BinOp::Gt(_)
            | BinOp::Ge(_) => Place::Compared,
            BinOp::Add(_)
            | BinOp::Sub(_)
            | BinOp::Mul(_)
            | BinOp::And(_)
            | BinOp::Or(_)
            | BinOp::BitAnd(_)
            | BinOp::BitOr(_)
            | BinOp::BitXor(_)
            | BinOp::Shl(_)
            | BinOp::Shr(_) => Place::Value,
            other => {
                self.refuse(other, "this operator does not translate");
                return;
            }
        };
        let literal = |e: &Expr| is_literal_with_method(e);
        if literal(&binary.left)
            && literal(&binary.right)
            && (has_method(&binary.left) || has_method(&binary.right))
        {
            self.refuse(
                binary,
                "arithmetic of sized constants does not translate: compute it in a `const`",
            );
        }
        self.value(&binary.left, place);
        self.value(&binary.right, place);
    }

    fn cast(&mut self, call: &ExprCall) {
        let Expr::Path(function) = call.func.as_ref() else {
            self.refuse(call, "this call does not translate");
            return;
        };
        let segments: Vec<String> = function
            .path
            .segments
            .iter()
            .map(|s| s.ident.to_string())
            .collect();
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let width = match names.as_slice() {
            ["bit_cast" | "signed_bit_cast"] => Some(first_turbofish(&function.path)),
            ["signed_cast" | "unsigned_cast"] => Some(CastWidth::Same),
            ["bits"] | ["Bits", "from"] => None,
            _ => {
                self.refuse(
                    call,
                    "only bit_cast, signed_bit_cast, signed_cast, unsigned_cast and bits translate: make the function a module of its own",
                );
                return;
            }
        };
        if call.args.len() != 1 {
            self.refuse(call, "expected one argument");
            return;
        }
        if let Some(width) = width {
            self.facts.casts.push(width);
        }
        self.value(&call.args[0], Place::Value);
    }

    fn method(&mut self, call: &ExprMethodCall, place: Place) {
        let name = call.method.to_string();
        let expected_arguments = match name.as_str() {
            "get_bit" | "get_bits" => 1,
            "replace_bit" => 2,
            _ => 0,
        };
        if call.args.len() != expected_arguments {
            self.refuse(
                call,
                format!("`{name}` takes {expected_arguments} argument(s)"),
            );
            return;
        }
        match name.as_str() {
            "val" => self.signal_path(&call.receiver),
            "index" => {
                if place == Place::Value {
                    self.refuse(
                        call,
                        "`.index()` may stand only as a bit offset, beside a comparison or as what is matched: arithmetic on it \
                         is indistinguishable from wrapping arithmetic in the syntax tree (use Bits arithmetic)",
                    );
                }
                self.value(&call.receiver, Place::Value);
            }
            "into" | "any" | "all" | "xor" => self.value(&call.receiver, Place::Value),
            "to_bits" => {
                if !is_literal_with_method(&call.receiver) {
                    self.refuse(
                        &call.receiver,
                        "`to_bits` is for literals, loop variables and constants",
                    );
                }
                self.value(&call.receiver, Place::Value);
            }
            "to_signed_bits" => {
                let width = match call.turbofish.as_ref().and_then(|t| t.args.first()) {
                    Some(argument) => width_of(argument),
                    None => CastWidth::Inferred,
                };
                self.facts.casts.push(width);
                self.value(&call.receiver, Place::Value);
            }
            "get_bit" | "get_bits" | "replace_bit" => {
                self.value(&call.receiver, Place::Value);
                self.offset(&call.args[0]);
                if let Some(bit) = call.args.get(1) {
                    self.value(bit, Place::Value);
                }
            }
            _ => self.refuse(&call.method, format!("`{name}` does not translate")),
        }
    }

    fn offset(&mut self, offset: &Expr) {
        if self.is_constant(offset) {
            return;
        }
        match offset {
            Expr::Paren(inner) => self.offset(&inner.expr),
            Expr::MethodCall(call) if call.method == "index" => self.value(offset, Place::Offset),
            other => self.refuse(
                other,
                "a bit offset is a constant or `.index()` of a signal: do the arithmetic in Bits before `.index()`",
            ),
        }
    }
}

fn is_named(member: &Member, name: &str) -> bool {
    matches!(member, Member::Named(ident) if ident == name)
}

/// Literals, names and arithmetic of them, with `.into()` and `.to_bits()` looked through.
fn is_literal_with_method(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Path(path) => !path.path.is_ident("self"),
        Expr::Field(field) => {
            matches!(field.base.as_ref(), Expr::Path(root) if root.path.is_ident("self"))
                && matches!(&field.member, Member::Named(name) if name.to_string().starts_with('_'))
        }
        Expr::Paren(inner) => is_literal_with_method(&inner.expr),
        Expr::Unary(unary) => is_literal_with_method(&unary.expr),
        Expr::Binary(binary) => {
            is_literal_with_method(&binary.left) && is_literal_with_method(&binary.right)
        }
        Expr::MethodCall(call) => {
            matches!(
                call.method.to_string().as_str(),
                "into" | "to_bits" | "to_signed_bits"
            ) && is_literal_with_method(&call.receiver)
        }
        _ => false,
    }
}

fn has_method(expression: &Expr) -> bool {
    match expression {
        Expr::MethodCall(_) => true,
        Expr::Paren(inner) => has_method(&inner.expr),
        Expr::Unary(unary) => has_method(&unary.expr),
        Expr::Binary(binary) => has_method(&binary.left) || has_method(&binary.right),
        _ => false,
    }
}

fn width_of(argument: &GenericArgument) -> CastWidth {
    match argument {
        GenericArgument::Type(Type::Infer(_)) => CastWidth::Inferred,
        argument => CastWidth::Given(argument.to_token_stream()),
    }
}

fn first_turbofish(path: &Path) -> CastWidth {
    match path.segments.last().map(|s| &s.arguments) {
        Some(PathArguments::AngleBracketed(arguments)) => {
            arguments.args.first().map_or(CastWidth::Inferred, width_of)
        }
        _ => CastWidth::Inferred,
    }
}

/// Checks a kernel's body.
fn check(body: &Block, parameters: Vec<Ident>) -> Result<Facts> {
    let mut checker = Checker {
        errors: Vec::new(),
        facts: Facts::default(),
        loops: Vec::new(),
        all_loops: Vec::new(),
        fields: Vec::new(),
        parameters,
    };
    checker.block(body);
    for variable in std::mem::take(&mut checker.all_loops) {
        if checker.fields.iter().any(|field| variable == field) {
            checker.refuse(
                &variable,
                "this loop variable has the name of a field, and rust-hdl does not tell them apart: rename it",
            );
        }
    }
    combine(checker.errors).map_or(Ok(checker.facts), Err)
}

fn combine(errors: Vec<Error>) -> Option<Error> {
    errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    })
}

/// Doc comment lines of the impl block.
fn doc_lines(item: &ItemImpl) -> String {
    let lines: Vec<String> = item
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(
                        text.value()
                            .trim_end()
                            .strip_prefix(' ')
                            .map_or(text.value(), str::to_owned),
                    ),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
        .collect();
    lines.join("\n")
}

pub fn expand(attributes: &Attributes, item: ItemImpl) -> Result<TokenStream> {
    let is_logic = item
        .trait_
        .as_ref()
        .and_then(|(_, path, _)| path.segments.last())
        .is_some_and(|segment| segment.ident == "Logic");
    if !is_logic {
        return Err(Error::new_spanned(
            &item.self_ty,
            "#[kernel] stands on `impl Logic for …`",
        ));
    }
    let [ImplItem::Fn(update)] = item.items.as_slice() else {
        return Err(Error::new_spanned(
            &item.self_ty,
            "a kernel's impl block has `update` and nothing else",
        ));
    };
    if update.sig.ident != "update" {
        return Err(Error::new_spanned(
            &update.sig.ident,
            "a kernel's function is `update`",
        ));
    }
    let Type::Path(self_type) = item.self_ty.as_ref() else {
        return Err(Error::new_spanned(&item.self_ty, "expected a struct"));
    };
    let type_name = self_type
        .path
        .segments
        .last()
        .map(|s| s.ident.to_string())
        .unwrap_or_default();
    let name = attributes
        .name
        .clone()
        .unwrap_or_else(|| snake_case(&type_name));

    let mut update = update.clone();
    let mut expander = MacroExpander::default();
    expander.visit_block_mut(&mut update.block);
    if let Some(error) = combine(expander.errors) {
        return Err(error);
    }
    let parameters: Vec<Ident> = item
        .generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Const(parameter) => Some(parameter.ident.clone()),
            _ => None,
        })
        .collect();
    let facts = check(&update.block, parameters.clone())?;
    CastRewriter.visit_block_mut(&mut update.block);

    let doc = doc_lines(&item);
    let parameter_names = parameters.iter().map(Ident::to_string);
    let constant_names = facts.constants.iter().map(|(name, _)| name);
    let constant_values = facts.constants.iter().map(|(_, value)| value);
    let casts = facts.casts.iter().map(|cast| match cast {
        CastWidth::Same => quote!(::hdl::kernel::CastWidth::Same),
        CastWidth::Given(width) => quote!(::hdl::kernel::CastWidth::Given(#width)),
        CastWidth::Inferred => quote!(::hdl::kernel::CastWidth::Inferred),
    });
    let (impl_generics, _, where_clause) = item.generics.split_for_impl();
    let self_type = &item.self_ty;
    let trait_path = item.trait_.as_ref().map(|(_, path, _)| path);
    let kept_attributes = item
        .attrs
        .iter()
        .filter(|attribute| !attribute.path().is_ident("doc"));
    Ok(quote! {
        #(#kept_attributes)*
        #[allow(clippy::vec_init_then_push, clippy::useless_conversion)]
        impl #impl_generics #self_type #where_clause {
            #[hdl_gen]
            #update
        }

        #[automatically_derived]
        impl #impl_generics #trait_path for #self_type #where_clause {
            fn update(&mut self) {
                <#self_type>::update(self);
            }
            fn connect(&mut self) {
                <#self_type>::connect(self);
            }
            fn hdl(&self) -> ::hdl::prelude::Verilog {
                ::hdl::kernel::describe(
                    <#self_type>::hdl(self),
                    &::hdl::kernel::Description {
                        name: ::std::string::String::from(#name),
                        parameters: ::std::vec![#((
                            ::std::string::String::from(#parameter_names),
                            ::hdl::kernel::Value::text(&#parameters),
                        )),*],
                        constants: ::std::vec![#((
                            ::std::string::String::from(#constant_names),
                            ::hdl::kernel::Value::text(&#constant_values),
                        )),*],
                        casts: ::std::vec![#(#casts),*],
                        doc: ::std::string::String::from(#doc),
                    },
                )
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `#[kernel]` says about a body: the error messages, or the facts.
    fn checked(body: &str) -> std::result::Result<Facts, String> {
        let mut block: Block = syn::parse_str(&format!("{{ {body} }}")).unwrap();
        let mut expander = MacroExpander::default();
        expander.visit_block_mut(&mut block);
        if let Some(error) = combine(expander.errors) {
            return Err(error.to_string());
        }
        let parameters = vec![parse_quote!(LANES)];
        check(&block, parameters).map_err(|error| {
            error
                .into_iter()
                .map(|e| e.to_string())
                .collect::<Vec<_>>()
                .join("; ")
        })
    }

    fn assert_refused(body: &str, message: &str) {
        match checked(body) {
            Ok(_) => panic!("accepted: {body}"),
            Err(found) => assert!(found.contains(message), "{body}: {found}"),
        }
    }

    #[test]
    fn what_rust_hdl_drops_or_garbles_is_refused() {
        for (body, message) in [
            (
                "match self.a.val().index() { 0 if self.c.val() => {} _ => {} }",
                "match guard",
            ),
            ("match self.a.val().index() { x => {} }", "binding"),
            ("match self.a.val().index() { _ => {} 0 => {} }", "last arm"),
            (
                "match self.a.val().index() { 0..=3 => {} _ => {} }",
                "range pattern",
            ),
            (
                "match self.a.val().index() { 0 | 1 => {} _ => {} }",
                "repeat the arm",
            ),
            (
                "for i in 0..=3 { self.a[i].next = self.b.val(); }",
                "one trip short",
            ),
            (
                "for i in (0..3).rev() { self.a[i].next = self.b.val(); }",
                "upwards",
            ),
            (
                "for i in 0.. { self.a[i].next = self.b.val(); }",
                "both ends",
            ),
            (
                "for i in 0..LANES - 1 { self.a[i].next = self.b.val(); }",
                "parentheses",
            ),
            (
                "for i in 0..2 { for i in 0..2 { self.a[i].next = self.b.val(); } }",
                "hides",
            ),
            (
                "for a in 0..2 { self.a[a].next = self.b.val(); }",
                "name of a field",
            ),
            (
                "self.a[self.s.val().index()].next = self.b.val();",
                "select by a signal",
            ),
            ("self.a.next = self.b[n].val();", "array index"),
            (
                "self.a.next = self.b.val() + (self.c.val().index() + 1).to_bits();",
                "`to_bits` is for",
            ),
            (
                "if self.a.val().index() + 1 == 3 { self.b.next = true; }",
                "`.index()`",
            ),
            (
                "self.a.next = self.b.val().get_bit(self.c.val().index() + 1);",
                "bit offset",
            ),
            (
                "self.a.next = self.b.val().get_bit(self.c.val());",
                "bit offset",
            ),
            ("let t = self.a.val();", "`let`"),
            (
                "self.a.next = if self.c.val() { 1.into() } else { 0.into() };",
                "statements in a kernel",
            ),
            ("self.a.next = self.b.val() as u8;", "`as`"),
            ("self.a.next = helper(self.b.val());", "module of its own"),
            ("println!(\"x\");", "runs in simulation"),
            ("assert!(self.a.val());", "runs in simulation"),
            ("self.a.next += 1;", "does not translate"),
            ("self.a.next = self.b.val() / 3;", "operator"),
            ("self.a.next = self.n;", "only signals are read"),
            ("self.a.next = self.s.val().p.v;", "struct inside a struct"),
            (
                "self.a.next = 200_u8.to_bits::<8>() + 100_u8.to_bits::<8>();",
                "sized constants",
            ),
            ("self.myself.next = self.b.val();", "garbles"),
            ("self.a = self.b.val();", "only `self.….next`"),
            ("if let Some(x) = self.a.val() {}", "`if let`"),
            ("while true {}", "does not translate"),
            ("registers!(self, clock, reset);", "expected registers!"),
            ("data_registers!(self, clock);", "expected data_registers!"),
        ] {
            assert_refused(body, message);
        }
    }

    #[test]
    fn a_kernel_of_the_usual_kind_is_accepted() {
        let facts = checked(
            "registers!(self, clock, reset, a, lane[2 * 3 + 1].acc);
             for i in 0..(LANES - 1) {
                 data_registers!(self, clock, b[i]);
                 if self.x.val().get_bits::<3>(0).index() == i { self.b[i].d.next = self.grid[i].cell[i + 1].val(); }
             }
             for i in 0..self._rows { self.row[i * self._rows].next = BIAS.into(); }
             match self.state.q.val() { State::Idle => self.a.d.next = 0.into(), State::Busy => {} }
             match self.x.val().get_bit(self.k.val().index()) { true => self.y.next = Self::K.to_bits(), false => self.y.next = (-1).into() }
             self.s.next.field = signed_cast(bit_cast::<W, 8>(self.x.val()));
             self.t.next = signed_bit_cast(self.s.val().field) + 3_i8.to_signed_bits::<4>();
             Stream::link(&mut self.rx, &mut self.inner.rx);",
        )
        .unwrap_or_else(|message| panic!("{message}"));
        let names: Vec<&str> = facts
            .constants
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["_rows", "BIAS", "Self$K"]);
        let casts: Vec<String> = facts
            .casts
            .iter()
            .map(|cast| match cast {
                CastWidth::Same => "same".to_owned(),
                CastWidth::Given(width) => width.to_string(),
                CastWidth::Inferred => "inferred".to_owned(),
            })
            .collect();
        assert_eq!(
            casts,
            ["same", "W", "inferred", "4"],
            "in the order of the tree"
        );
    }

    #[test]
    fn registers_hold_by_default() {
        let mut block: Block = parse_quote!({
            for i in 0..2 {
                registers!(self, clock, reset, lane[i].acc);
            }
        });
        MacroExpander::default().visit_block_mut(&mut block);
        let expected: Block = parse_quote!({
            for i in 0..2 {
                self.lane[i].acc.clock.next = self.clock.val();
                self.lane[i].acc.reset.next = self.reset.val();
                self.lane[i].acc.d.next = self.lane[i].acc.q.val();
            }
        });
        assert_eq!(
            block.to_token_stream().to_string(),
            expected.to_token_stream().to_string()
        );
    }

    #[test]
    fn only_a_logic_impl_with_update_alone_is_a_kernel() {
        let message = |item: ItemImpl| {
            expand(&Attributes::default(), item).map_err(|error| error.to_string())
        };
        assert!(message(parse_quote!(impl Logic for X { fn update(&mut self) {} })).is_ok());
        for item in [
            parse_quote!(impl X { fn update(&mut self) {} }),
            parse_quote!(impl Logic for X { fn connect(&mut self) {} }),
            parse_quote!(impl Logic for X { fn update(&mut self) {} fn hdl(&self) -> Verilog { x } }),
        ] {
            assert!(message(item).is_err());
        }
        assert!(syn::parse_str::<Attributes>("name = \"pe_array\"").is_ok());
        assert!(syn::parse_str::<Attributes>("name = \"PeArray\"").is_err());
        assert!(syn::parse_str::<Attributes>("title = \"x\"").is_err());
    }

    #[test]
    fn type_names_become_module_names() {
        for (name, expected) in [
            ("Pe", "pe"),
            ("DotProduct16", "dot_product16"),
            ("FP8Lane", "fp8_lane"),
            ("PEArray", "pe_array"),
            ("E4M3ToBf16", "e4_m3_to_bf16"),
        ] {
            assert_eq!(snake_case(name), expected);
        }
    }
}
