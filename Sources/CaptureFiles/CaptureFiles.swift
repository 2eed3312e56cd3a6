// CaptureFiles
