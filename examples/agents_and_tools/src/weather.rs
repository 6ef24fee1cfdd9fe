//! A tool server with one tool, `get_weather`.

use std::sync::Arc;
use std::time::Duration;

use production::settings;
use production::spans::{EventType, trace};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::json;
use tokio::time::sleep;

use crate::server::Tracing;

const GET_WEATHER: &str = "get_weather";

/// There is no weather for a city.
#[derive(Debug, thiserror::Error)]
#[error("no weather for this city")]
pub struct NoWeather;

/// The server. Its clones share their settings.
#[derive(Clone)]
pub struct Weather {
    tracing: Arc<Tracing>,
    pause: Duration,
}

impl Weather {
    /// Reads `TOOL_PAUSE_MS`, the time that each call takes, and the settings of
    /// [`Tracing`].
    ///
    /// # Errors
    /// When `TOOL_PAUSE_MS` isn't a number.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Weather {
            tracing: Arc::new(Tracing::from_env()),
            pause: Duration::from_millis(settings::read("TOOL_PAUSE_MS", 0)?),
        })
    }

    async fn get_weather(
        &self,
        params: &CallToolRequestParams,
    ) -> Result<CallToolResponse, ErrorData> {
        let city = params.arguments.as_ref().and_then(|it| it.get("city"));
        let Some(city) = city.and_then(|city| city.as_str()) else {
            return Err(ErrorData::invalid_params("no city", None));
        };
        let found = trace("look up", EventType::Tool, async {
            sleep(self.pause).await;
            match city {
                "Paris" => Ok("18 °C and rain"),
                "Oslo" => Ok("2 °C and snow"),
                _ => Err(NoWeather),
            }
        });
        let result = match found.await {
            Ok(weather) => {
                CallToolResult::success(vec![ContentBlock::text(weather)])
            }
            Err(error) => {
                let why = error.to_string();
                CallToolResult::error(vec![ContentBlock::text(why)])
            }
        };
        Ok(CallToolResponse::Complete(result))
    }
}

impl ServerHandler for Weather {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let schema = json!({
            "type": "object",
            "properties": { "city": { "type": "string" } },
            "required": ["city"],
        });
        let schema = schema.as_object().cloned().unwrap_or_default();
        let tool = Tool::new(GET_WEATHER, "The weather in a city", schema);
        (name == GET_WEATHER).then_some(tool)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        request: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self.get_tool(GET_WEATHER).into_iter().collect();
        let work = async { Ok(ListToolsResult::with_all_items(tools)) };
        self.tracing.request("tools/list", &request, work).await
    }

    // ANCHOR: call
    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        request: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = (params.name == GET_WEATHER).then_some(GET_WEATHER);
        let work = async {
            match tool {
                Some(_) => self.get_weather(&params).await,
                None => Err(ErrorData::invalid_params("no such tool", None)),
            }
        };
        self.tracing.call_tool(tool, &params, &request, work).await
    }
    // ANCHOR_END: call
}
