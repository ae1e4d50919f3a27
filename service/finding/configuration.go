package finding

// ConfigurationUnusable is about the service's own settings.
const ConfigurationUnusable ID = "configuration-unusable"
