//! What is right: formats, blocks, quantizer, exact arithmetic and the language-model engine
