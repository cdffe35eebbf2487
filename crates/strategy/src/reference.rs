//! The reference of the file in Markdown, rendered from its schema.
use serde_json::Value;

/// X
pub fn render_reference(_schema: &Value) -> String {
    String::new()
}
