//! How a message lies on the socket.
