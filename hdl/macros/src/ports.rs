//! `#[derive(PortAccess)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Data, DeriveInput, Error, Fields, GenericArgument, PathArguments, Result, Type, TypePath,
};

/// The last segment's name and type arguments of a path type.
fn generic_arguments(path: &TypePath) -> Option<(String, Vec<&Type>)> {
    let segment = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    let types = arguments
        .args
        .iter()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
        .collect();
    Some((segment.ident.to_string(), types))
}

/// Whether a field's type is written as a port: `Signal<In|Out, _>`, or an array or `Vec` of a port.
fn is_port(ty: &Type) -> bool {
    match ty {
        Type::Array(array) => is_port(&array.elem),
        Type::Path(path) => match generic_arguments(path) {
            Some((name, types)) if name == "Signal" => matches!(
                types.first(),
                Some(Type::Path(direction)) if direction.path.is_ident("In") || direction.path.is_ident("Out")
            ),
            Some((name, types)) if name == "Vec" => types.first().is_some_and(|ty| is_port(ty)),
            _ => false,
        },
        _ => false,
    }
}

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "PortAccess is for structs of signals",
        ));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(
            &input.ident,
            "PortAccess needs named fields",
        ));
    };
    let ports: Vec<_> = fields
        .named
        .iter()
        .filter(|field| {
            is_port(&field.ty) || field.attrs.iter().any(|a| a.path().is_ident("interface"))
        })
        .filter_map(|field| field.ident.as_ref())
        .collect();
    let name = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::hdl::sim::PortAccess for #name #ty_generics #where_clause {
            fn port_count(&self) -> usize {
                0 #(+ ::hdl::sim::PortAccess::port_count(&self.#ports))*
            }
            fn poke(&mut self, port: usize, words: &[u64]) {
                let mut port = port;
                #({
                    let count = ::hdl::sim::PortAccess::port_count(&self.#ports);
                    if port < count {
                        return ::hdl::sim::PortAccess::poke(&mut self.#ports, port, words);
                    }
                    port -= count;
                })*
                let _ = (port, words);
            }
            fn peek(&self, port: usize, words: &mut [u64]) {
                let mut port = port;
                #({
                    let count = ::hdl::sim::PortAccess::port_count(&self.#ports);
                    if port < count {
                        return ::hdl::sim::PortAccess::peek(&self.#ports, port, words);
                    }
                    port -= count;
                })*
                let _ = (port, words);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn ports_are_told_from_internal_fields_by_their_type() {
        let ports: [Type; 4] = [
            parse_quote!(Signal<In, Bits<8>>),
            parse_quote!(prelude::Signal<Out, Clock>),
            parse_quote!([Signal<In, Bit>; 4]),
            parse_quote!(Vec<Signal<Out, Signed<W>>>),
        ];
        assert!(ports.iter().all(is_port));
        let internal: [Type; 4] = [
            parse_quote!(Signal<Local, Bits<8>>),
            parse_quote!(Register<Bits<8>>),
            parse_quote!([Register<Bit>; 4]),
            parse_quote!(Constant<Bits<8>>),
        ];
        assert!(!internal.iter().any(is_port));
    }

    #[test]
    fn only_structs_with_named_fields_have_ports() {
        let input: DeriveInput = parse_quote!(
            enum State {
                Idle,
            }
        );
        assert!(expand(&input).is_err());
        let input: DeriveInput = parse_quote!(
            struct Pair(Signal<In, Bit>);
        );
        assert!(expand(&input).is_err());
    }
}
