//! One exchange through a proxy, byte by byte: a client that has sent a request, and a backend that has got its head.

use super::plane::{Backend, Proxy, Setup, Wire};

/// Both ends of an exchange, and what is between them. Parts can be moved out, to drop one end before the other.
pub struct RawExchange {
    pub backend: Backend,
    pub proxy: Proxy,
    pub client: Wire,
    /// The backend's end of the connection on which the request came.
    pub server: Wire,
    /// The request's head as the backend got it.
    pub head: String,
}

impl RawExchange {
    /// Sends `request` through a proxy of its own.
    pub async fn begin(request: impl AsRef<[u8]>) -> Self {
        Self::begin_with(Setup::default(), request).await
    }

    /// The same through a proxy that is set up differently.
    pub async fn begin_with(setup: Setup, request: impl AsRef<[u8]>) -> Self {
        let backend = Backend::start().await;
        let proxy = Proxy::start(backend.address(), setup);
        let mut client = proxy.connect().await;
        client.send(request).await;
        let mut server = backend.accept().await;
        let head = server.head().await;
        Self {
            backend,
            proxy,
            client,
            server,
            head,
        }
    }

    /// Sends the next request on the same connections; gives its head as the backend gets it.
    pub async fn again(&mut self, request: impl AsRef<[u8]>) -> String {
        self.client.send(request).await;
        self.server.head().await
    }

    /// Has the backend send `answer`; gives the head that the client gets.
    pub async fn answered(&mut self, answer: impl AsRef<[u8]>) -> String {
        self.server.send(answer).await;
        self.client.head().await
    }

    /// Has the backend answer with `body`; gives all that the client gets.
    pub async fn finish(&mut self, body: &str) -> String {
        self.server.finish(&mut self.client, body).await
    }
}
