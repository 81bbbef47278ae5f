//! The control tokens of the family's chat format, by their exact text.

/// Opens a channel; a name line follows, then the model's reasoning.
pub const CHANNEL: &str = "<|channel>";
/// Closes a channel.
pub const CHANNEL_END: &str = "<channel|>";
/// The name line of the reasoning channel, which is no part of the reasoning.
pub const THOUGHT_NAME: &str = "thought\n";
/// Opens a turn; its role follows.
pub const TURN: &str = "<|turn>";
/// Closes a turn, and so the generation.
pub const TURN_END: &str = "<turn|>";
/// Opens a function call.
pub const TOOL_CALL: &str = "<|tool_call>";
/// Closes a function call.
pub const TOOL_CALL_END: &str = "<tool_call|>";
/// Opens a function's result. The model writes it when it waits for one, which ends the generation.
pub const TOOL_RESPONSE: &str = "<|tool_response>";
/// Both quotes of a string inside a call.
pub const QUOTE: &str = "<|\"|>";
/// Stands for a picture in a rendered prompt, and in the model's input once for each of its tokens.
pub const IMAGE: &str = "<|image|>";
/// Comes before a picture's tokens.
pub const IMAGE_BEGIN: &str = "<|image>";
/// Comes behind a picture's tokens.
pub const IMAGE_END: &str = "<image|>";
/// Stands for a sound in a rendered prompt, and in the model's input once for each of its tokens.
pub const AUDIO: &str = "<|audio|>";
/// Comes before a sound's tokens.
pub const AUDIO_BEGIN: &str = "<|audio>";
/// Comes behind a sound's tokens.
pub const AUDIO_END: &str = "<audio|>";
/// Ends the generation outside any turn.
pub const EOS: &str = "<eos>";
